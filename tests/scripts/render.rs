//! The text of a snapshot: why, call, reply, then the keys that changed.

use std::collections::BTreeMap;
use std::fmt::Write;

use _core::lua::protocol::{Function, TEXT};
use redis::Value;
use serde_json::Value as Json;

use crate::fixture::Fixture;
use crate::keyspace::{Content, Key, Keyspace, same_expiry};
use crate::server::{BASE, Refusal, items, text};
use crate::times::Times;

/// More than this many alike are counted, not listed.
const LISTED: usize = 6;
const MEMBER: &str = "\0member";

pub fn reply(fixture: &Fixture, reply: &Result<Value, Refusal>, times: &Times) -> String {
    match reply {
        Err(refusal) => format!("error: {}", error(refusal)),
        Ok(value) => format!("reply: {}", fields(fixture.when.function, value, fixture.unordered, times))
            .replace("reply: \n", "reply:\n"),
    }
}

/// What a refusal says, without what each kind of server adds to it.
fn error(refusal: &Refusal) -> String {
    let message = refusal.to_string().replace(BASE, "<base>");
    if message.starts_with("OOM ") { "OOM, by the server itself".to_owned() } else { message }
}

/// A reply with the names that the protocol gives its parts.
fn fields(function: &Function, value: &Value, unordered: bool, times: &Times) -> String {
    let declared: Json = serde_json::from_str(TEXT).expect("protocol.json");
    let declared = &declared["functions"][&function.name]["reply"];
    let names = |part: &str| -> Vec<String> {
        declared[part].as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let (header, refusal, record) = (names("header"), names("refusal"), names("record"));
    if !matches!(value, Value::Array(_)) {
        return shown(&text(value), times);
    }
    let mut rest: Vec<String> = items(value).iter().map(text).collect();
    let mut parts = Vec::new();
    let mut refused = 0;
    for name in header.iter().take(rest.len()) {
        let value = rest.remove(0);
        if name == "refused" {
            refused = value.parse().unwrap_or(0);
        }
        // Until when, rather than how long: that does not depend on the machine.
        let value = match value.parse::<i64>() {
            Ok(wait) if name == "wait_ms" && wait > 0 => times.until(wait),
            _ => shown(&value, times),
        };
        parts.push(format!("{name}={value}"));
    }
    let mut out = parts.join(" ");
    let refusals: Vec<String> = rest.drain(..(refused * refusal.len()).min(rest.len())).collect();
    let refusals: Vec<String> =
        refusals.chunks(refusal.len().max(1)).map(|part| record_line(&refusal, part, times)).collect();
    let width = if record.is_empty() { 1 } else { record.len() };
    let mut records: Vec<String> = if record.is_empty() || !rest.len().is_multiple_of(width) {
        rest.iter().map(|value| shown(value, times)).collect()
    } else {
        rest.chunks(width).map(|part| record_line(&record, part, times)).collect()
    };
    if unordered {
        records.sort();
    }
    if refusal.is_empty() && record.is_empty() {
        if records.is_empty() && !header.is_empty() {
            return out;
        }
        let _ = write!(out, "[{}]", abridged(&records, ", "));
        return out;
    }
    for (label, lines) in [("refused: ", refusals), ("", records)] {
        let lines: Vec<String> = lines.iter().map(|line| format!("\n  {label}{line}")).collect();
        out += &abridged(&lines, "");
    }
    if out.is_empty() { "(nothing)".to_owned() } else { out }
}

fn record_line(names: &[String], values: &[String], times: &Times) -> String {
    let parts: Vec<String> = names
        .iter()
        .zip(values)
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}={}", shown(value, times)))
        .collect();
    parts.join(" ")
}

/// The keys that differ, as `field before → after`.
pub fn changes(before: &Keyspace, after: &Keyspace, times: &Times) -> String {
    let mut kinds: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let nothing = Key { content: Content::Hash(BTreeMap::new()), expires_at: None };
    let counted = counted(before, after);
    for name in after.changed_since(before) {
        let (old, new) = (before.0.get(name), after.0.get(name));
        let short = times.normalise(&short_name(name));
        if counted.is_some() && short.starts_with("stats") {
            continue;
        }
        let (mark, lines) = match (old, new) {
            (Some(old), Some(new)) if old.content.kind() == new.content.kind() => ("", difference(old, new, times)),
            (None, Some(new)) => (" (new)", difference(&empty_like(new, &nothing), new, times)),
            (Some(old), None) => (" (gone)", difference(old, &empty_like(old, &nothing), times)),
            (Some(old), Some(new)) => (" (another type)", vec![format!("{:?} → {:?}", old.content, new.content)]),
            (None, None) => continue,
        };
        let mut block = format!("  {short}{mark}\n");
        for line in lines {
            let _ = writeln!(block, "    {line}");
        }
        let kind = short.split(':').next().unwrap_or_default().to_owned();
        kinds.entry(kind).or_default().push((natural(&short), block));
    }
    if kinds.is_empty() && counted.is_none() {
        return "keys: unchanged".to_owned();
    }
    let mut out = "keys:\n".to_owned();
    if let Some(counted) = counted {
        let _ = writeln!(out, "  stats, stats:<minute>\n    {counted}");
    }
    for (kind, mut blocks) in kinds {
        blocks.sort();
        let count = blocks.len();
        let listed = if count > LISTED { 2 } else { count };
        for (_, block) in &blocks[..listed] {
            out += block;
        }
        if count > listed {
            let _ = writeln!(out, "  … {} more of {kind}:", count - listed);
        }
    }
    out.trim_end().to_owned()
}

/// What was counted, when the total and this minute agree about it.
fn counted(before: &Keyspace, after: &Keyspace) -> Option<String> {
    let counts = |keys: &Keyspace, name: &str| -> BTreeMap<String, i64> {
        keys.hash(name)
            .into_iter()
            .flatten()
            .map(|(counter, number)| (counter.clone(), number.parse().unwrap_or_default()))
            .collect()
    };
    let difference = |name: &str| -> Vec<String> {
        let old = counts(before, name);
        counts(after, name)
            .into_iter()
            .map(|(counter, number)| (number - old.get(&counter).unwrap_or(&0), counter))
            .filter(|(number, _)| *number != 0)
            .map(|(number, counter)| format!("{counter} {number:+}"))
            .collect()
    };
    let minute = after.0.keys().find(|name| short_name(name) == "stats:<minute>")?;
    let total = difference(&format!("{BASE}stats"));
    (!total.is_empty() && total == difference(minute) && after.0[minute].expires_at.is_some()).then(|| total.join(", "))
}

/// The minute in a key's name is when the test ran.
pub fn short_name(name: &str) -> String {
    let name = name.strip_prefix(BASE).unwrap_or(name);
    match name.split_once(':') {
        Some((kind @ ("stats" | "task_stats"), _)) => format!("{kind}:<minute>"),
        _ => name.to_owned(),
    }
}

fn empty_like(key: &Key, nothing: &Key) -> Key {
    let content = match &key.content {
        Content::String(_) => Content::String(String::new()),
        Content::List(_) => Content::List(Vec::new()),
        Content::Set(_) => Content::Set(Vec::new()),
        Content::Sorted(_) => Content::Sorted(BTreeMap::new()),
        Content::Hash(_) => nothing.content.clone(),
    };
    Key { content, expires_at: None }
}

fn difference(old: &Key, new: &Key, times: &Times) -> Vec<String> {
    let mut lines = match (&old.content, &new.content) {
        (Content::List(old), Content::List(new)) => {
            vec![format!("[{}] → [{}]", list(old, times), list(new, times))]
        }
        (Content::Set(old), Content::Set(new)) => {
            let as_pairs =
                |members: &[String]| members.iter().map(|member| (member.clone(), MEMBER.to_owned())).collect();
            pairs(&as_pairs(old), &as_pairs(new), times)
        }
        (Content::Hash(old), Content::Hash(new)) | (Content::Sorted(old), Content::Sorted(new)) => {
            pairs(old, new, times)
        }
        (Content::String(old), Content::String(new)) => {
            let told = |value: &str| if value.is_empty() { "-".to_owned() } else { shown(value, times) };
            vec![format!("{} → {}", told(old), told(new))]
        }
        (old, new) => vec![format!("{old:?} → {new:?}")],
    };
    if old.content == new.content {
        lines.clear();
    }
    if !same_expiry(old.expires_at, new.expires_at) {
        let told = |expires_at: Option<i64>| expires_at.map_or("never".to_owned(), |time| times.expiry(time));
        lines.push(match (old.expires_at, new.expires_at) {
            (None, Some(_)) => format!("expires {}", told(new.expires_at)),
            (old, new) => format!("expires {} → {}", told(old), told(new)),
        });
    }
    lines
}

fn pairs(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>, times: &Times) -> Vec<String> {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort_by_key(|name| natural(name));
    names.dedup();
    let told = |name: &str, value: &str| match value.parse::<i64>() {
        // Between two calls, whose distance nobody knows to the millisecond.
        Ok(ms) if name == "waited_ms" => format!(" <{} minutes and some>", ms / 60_000),
        // A member of a set has no value.
        _ if value == MEMBER => String::new(),
        _ => format!(" {}", shown(value, times)),
    };
    let lines: Vec<String> = names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| match (old.get(name), new.get(name)) {
            (None, Some(value)) => format!("+ {name}{}", told(name, value)),
            (Some(value), None) => format!("- {name}{}", told(name, value)),
            (Some(old), Some(new)) => format!("  {name}{} →{}", told(name, old), told(name, new)),
            (None, None) => String::new(),
        })
        .collect();
    if lines.len() <= 20 {
        return lines;
    }
    let mut listed = lines[..2].to_vec();
    listed.push(format!("… {} more", lines.len() - 2));
    listed
}

fn list(entries: &[String], times: &Times) -> String {
    let entries: Vec<String> = entries.iter().map(|entry| message(entry, times)).collect();
    abridged(&entries, ", ")
}

/// A netstring message as its words, anything else as it is.
fn message(entry: &str, times: &Times) -> String {
    let (mut words, mut rest) = (Vec::new(), entry);
    while let Some((length, tail)) = rest.split_once(':') {
        let Some((word, tail)) = length.parse().ok().and_then(|length| tail.split_at_checked(length)) else {
            break;
        };
        words.push(if word.is_empty() { "-".to_owned() } else { shown(word, times) });
        rest = tail.strip_prefix(',').unwrap_or(tail);
    }
    if words.is_empty() || !rest.is_empty() { shown(entry, times) } else { words.join(" ") }
}

fn abridged(parts: &[String], between: &str) -> String {
    if parts.len() <= 12 {
        return parts.join(between);
    }
    let break_ = if between.is_empty() { "\n  " } else { between };
    let middle = format!("{break_}… {} more", parts.len() - 3);
    let tail = &parts[parts.len() - 1];
    format!("{}{middle}{between}{tail}", parts[..2].join(between))
}

fn shown(value: &str, times: &Times) -> String {
    let mut value = value.replace(BASE, "<base>");
    if (value.starts_with("[{") || value.starts_with("{\""))
        && let Ok(json) = serde_json::from_str::<Json>(&value)
    {
        value = json.to_string(); // its objects in one order, whichever server wrote them
    }
    if value.len() > 200 {
        return format!("<{} bytes>", value.len());
    }
    if value.is_empty() {
        return "\"\"".to_owned();
    }
    times.normalise(&value.replace('\n', "\\n"))
}

/// Sorts t2 before t10.
fn natural(name: &str) -> String {
    let mut out = String::new();
    let mut rest = name;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let digits = rest[start..].bytes().take_while(u8::is_ascii_digit).count();
        let _ = write!(out, "{}{:0>20}", &rest[..start], &rest[start..start + digits]);
        rest = &rest[start + digits..];
    }
    out + rest
}
