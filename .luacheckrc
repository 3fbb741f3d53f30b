-- The sources run inside Redis (Lua 5.1), each as the body of a module; native/src/library.rs composes them.
std = "none"
max_line_length = 120
max_comment_line_length = false -- the first line of a transition is one sentence, however long
exclude_files = { "lua/releases" }
read_globals = {
  -- what Redis offers
  "assert", "cjson", "cmsgpack", "error", "ipairs", "math", "next", "pairs", "pcall", "redis", "select", "string", "table",
  "tonumber", "tostring", "type", "unpack",
  -- lua/lib
  "adaptive", "admit", "ages", "ask", "attempt", "batches", "bulk", "calls", "children", "chores", "chunks", "claim",
  "clock", "edges", "ending", "entering", "errors", "figures", "flow", "gather", "gauges", "group", "halt",
  "hand_off", "history", "inputs", "keys", "lane", "limits", "line", "listing", "mail", "map", "member", "memos",
  "move", "number", "object", "opening", "outbox", "parents", "pause_rules", "pauses", "payload", "place", "reap",
  "recount", "replay", "saving", "schedule", "share", "spawning", "stats", "stopping", "task", "timer", "turn",
  "undo", "unique", "uses",
  "waiters", "waits",
}
files["ardiq/testing/emulation.lua"] = {
  globals = { "cjson", "cmsgpack", "redis" },
  read_globals = { "collectgarbage", "jit", "loadstring", "newproxy" },
}
