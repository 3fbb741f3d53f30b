"use strict";
(function () {
  const root = document.documentElement, live = document.getElementById("live");
  const theme = localStorage.getItem("ardiq-theme");
  if (theme) root.dataset.theme = theme;
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-theme-toggle]")) return;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem("ardiq-theme", root.dataset.theme);
  });

  // What an action told stays on the page when the end of the task loads it again.
  const main = document.getElementById("main"), kept = sessionStorage.getItem("ardiq-notice");
  if (kept && main && !main.querySelector(".notice")) main.insertAdjacentHTML("afterbegin", kept);
  sessionStorage.removeItem("ardiq-notice");
  function keep() { const notice = main.querySelector(".notice"); if (notice) sessionStorage.setItem("ardiq-notice", notice.outerHTML); }

  const lines = document.getElementById("lines");
  if (lines) lines.scrollTop = lines.scrollHeight;

  const all = document.querySelector("[data-all]");
  if (all) {
    all.hidden = false;
    all.addEventListener("change", () => all.form.querySelectorAll("[name=id]").forEach((box) => { box.checked = all.checked; }));
  }

  // Live: fragments replace what has their id. A closed stream is followed by polling.
  let frozen = false, missed = 0, source = null;
  const shown = (text) => { if (live) { live.hidden = false; live.textContent = text; } };
  function put(id, html) {
    if (frozen) { missed += 1; return shown(`paused, ${missed} changes`); }
    const old = document.getElementById(id), made = document.createElement("template");
    made.innerHTML = html;
    const next = made.content.getElementById(id);
    if (!old || !next || old.contains(document.activeElement) && old !== document.activeElement) return;
    old.replaceWith(next);
  }
  function listen(address) {
    source = new EventSource(address);
    source.addEventListener("open", () => shown(frozen ? "paused" : "live"));
    source.addEventListener("fragment", (event) => { const told = JSON.parse(event.data); put(told.id, told.html); });
    source.addEventListener("lines", (event) => {
      const log = document.getElementById("lines");
      if (!log || frozen) return;
      const below = log.scrollHeight - log.scrollTop - log.clientHeight < 30;
      for (const line of JSON.parse(event.data)) log.appendChild(document.createElement("div")).textContent = line;
      if (below) log.scrollTop = log.scrollHeight;
    });
    source.addEventListener("end", () => { source.close(); if (!frozen) { keep(); location.reload(); } });
    source.addEventListener("error", () => {
      shown("waiting for the server");
      if (source.readyState === EventSource.CLOSED) setTimeout(poll, 10000);
    });
  }
  async function poll() {
    if (!document.hidden) {
      const answer = await fetch(location.href).catch(() => null);
      if (answer && answer.ok) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        page.querySelectorAll("[data-live]").forEach((each) => put(each.id, each.outerHTML));
        shown("every 10 s");
      }
    }
    setTimeout(poll, 10000);
  }
  const stream = document.querySelector("[data-stream]");
  if (stream) {
    const address = stream.dataset.stream;
    if (!document.hidden) listen(address);
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) { if (source) source.close(); source = null; } else if (!source) listen(address);
    });
  }

  // Keys: / searches, g and a letter goes to a screen, j and k choose a row, x ticks it, Enter opens it, p freezes the page.
  let after = "";
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([type=checkbox]),select,textarea")) return;
    const key = event.key, before = after;
    after = "";
    if (before === "g") {
      const link = document.querySelector(`nav.side a[data-key="${CSS.escape(key)}"]`);
      if (link) link.click();
    } else if (key === "g") after = "g";
    else if (key === "/") { const search = document.getElementById("search"); if (search) { event.preventDefault(); search.focus(); } }
    else if (key === "j" || key === "k") {
      const rows = [...document.querySelectorAll("table.rows tbody tr")].map((row) => row.querySelector("a")).filter(Boolean);
      const row = document.activeElement.closest("tr"), link = row && row.querySelector("a");
      const at = rows.indexOf(link) + (key === "j" ? 1 : -1);
      if (rows.length) rows[Math.max(0, Math.min(rows.length - 1, at))].focus();
    } else if (key === "x") {
      const row = event.target.closest("tr"), box = row && row.querySelector("[name=id]");
      if (box) box.checked = !box.checked;
    } else if (key === "p" && stream) {
      frozen = !frozen;
      if (!frozen) { missed = 0; location.reload(); } else shown("paused, 0 changes");
    }
  });
})();
