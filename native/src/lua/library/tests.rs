use super::*;

const PROTOCOL: &str = r#"{
  "version": 3, "library": "demo_v3", "prefix": "demo",
  "states": {}, "keys": {}, "shared_keys": {}, "errors": {},
  "functions": {
    "put": {"kind": "transition", "idempotent": false, "flags": [],
      "args": [{"name": "limit", "type": "int", "min": 1, "max": 9}, {"name": "lanes", "type": "json"}],
      "tail": {"name": "items", "max": 5, "record": [
        {"name": "id", "type": "string"}, {"name": "size", "type": "int"}]}},
    "drop": {"kind": "transition", "idempotent": false, "flags": ["allow-oom"], "args": [{"name": "id", "type": "string"}]},
    "size": {"kind": "query", "flags": ["no-writes"], "args": []}
  }
}"#;

fn protocol() -> &'static Protocol {
    Box::leak(Box::new(Protocol::parse(PROTOCOL).unwrap()))
}

fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

fn tree() -> Vec<Source> {
    vec![
        source("transitions/put.lua", "-- put\nreturn function(base, args)\n  return item.add(base, args)\nend\n"),
        source("lib/keys.lua", "local M = {}\nfunction M.item(base) return base .. 'item' end\nreturn M"),
        source("lib/item.lua", "local M = {}\nfunction M.add(base) return keys.item(base) end\nreturn M\n"),
        source("lib/spare.lua", "return {}\n"),
        source("transitions/drop.lua", "-- spare.x is only mentioned\nreturn function() return my_keys.x end"),
        source("queries/size.lua", "return function(base) return #keys.item(base) end"),
    ]
}

fn library() -> Library {
    Library::compose(protocol(), tree()).unwrap()
}

#[test]
fn the_payload_is_the_same_whatever_the_order_of_files() {
    let mut reversed = tree();
    reversed.reverse();
    let other = Library::compose(protocol(), reversed).unwrap();
    assert_eq!(library().payload(), other.payload());
    assert_eq!(library().sha1(), sha1(&other.payload()));
}

#[test]
fn each_library_comes_after_those_that_it_names() {
    let payload = library().payload();
    assert!(payload.starts_with("#!lua name=demo_v3\n-- "), "{payload}");
    let at = |lib: &str| payload.find(&format!("local {lib} = (function()")).unwrap();
    assert!(at("keys") < at("item"), "{payload}");
    for name in ["drop", "put", "size"] {
        assert!(payload.contains(&format!("function_name='demo_v3_{name}'")), "{payload}");
    }
}

#[test]
fn libraries_that_need_each_other_are_refused() {
    let refused = |libs: &[(&str, &str)]| {
        let mut sources = tree();
        sources.extend(libs.iter().map(|(name, text)| source(&format!("lib/{name}.lua"), text)));
        Library::compose(protocol(), sources).map(|_| ()).unwrap_err()
    };
    let circle = [("a", "return keys.x"), ("b", "return c.x"), ("c", "return d.x"), ("d", "-- a.x\nreturn b.x")];
    assert_eq!(refused(&circle), "lib/: a circle: b -> c -> d -> b");
    assert_eq!(refused(&[("a", "return a.x")]), "lib/: a circle: a -> a");
}

#[test]
fn the_wrapper_names_and_converts_what_is_declared() {
    let payload = library().payload();
    let packed = "if is_packed then records = unpacked(ARGV[3]) else records = behind(ARGV, 2) end";
    assert!(payload.contains(packed), "{payload}");
    let misfit = "#ARGV < 2 or not records or #records > 10 or #records % 2 ~= 0";
    assert!(payload.contains(misfit), "{payload}");
    let limit = "local arg1 = integer(ARGV[1])\n  if not arg1 or arg1 < 1 or arg1 > 9 then return refuse('put', 'limit is \
                 not an integer from 1 to 9') end";
    assert!(payload.contains(limit), "{payload}");
    assert!(payload.contains("local arg2 = json(ARGV[2])"), "{payload}");
    assert!(payload.contains("for i = 1, #records, 2 do\n    local size = tonumber(records[i + 1])"), "{payload}");
    assert!(payload.contains("records[i + 1] = size\n  end"), "{payload}");
    assert!(payload.contains("pcall(run, KEYS[1], { limit = arg1, lanes = arg2, items = records })"), "{payload}");
}

#[test]
fn a_script_holds_what_its_function_reaches() {
    let library = library();
    let put = library.script("put").unwrap();
    assert!(put.source.contains("local item = (function()"), "{}", put.source);
    assert_eq!(put.sha1, sha1(&put.source));
    let drop = library.script("drop").unwrap();
    assert!(!drop.source.contains("spare ="), "{}", drop.source);
    assert!(!drop.source.contains("keys ="), "{}", drop.source);
    assert!(library.script("nothing").is_err());
}

#[test]
fn scripts_treat_maxmemory_as_function_flags_would() {
    let library = library();
    let (write, ask) = ("redis.call('DEL', KEYS[1] .. 'oom')", "redis.pcall('SETRANGE', KEYS[1] .. 'oom', 0, '')");
    let first = |function| {
        let source = library.script(function).unwrap().source;
        (source.contains(write), source.contains(ask))
    };
    assert_eq!(first("drop"), (true, false), "what drains is never refused");
    assert_eq!(first("put"), (false, true), "what adds is refused before anything is written");
    assert_eq!(first("size"), (false, false));
    assert!(!library.payload().contains(write) && !library.payload().contains(ask));
}

#[test]
fn lines_of_the_payload_are_told_as_lines_of_the_sources() {
    let library = library();
    let payload = library.payload();
    let line = 1 + payload.lines().position(|line| line.contains("return item.add")).unwrap();
    let told = library.locate(&format!("user_function:{line}: boom script: demo_v3_put, on @user_function:{line}."));
    assert_eq!(told, "transitions/put.lua:3: boom script: demo_v3_put, on transitions/put.lua:3.");

    let script = library.script("put").unwrap();
    let line = 1 + script.source.lines().position(|line| line.contains("return keys.item")).unwrap();
    assert_eq!(script.locate(&format!("@user_script: {line}: -OOM")), "lib/item.lua:2: -OOM");
}

#[test]
fn comments_stay_out_of_what_the_server_is_given() {
    let mut sources = tree();
    let before = library();
    for source in &mut sources {
        source.text = source.text.replace("  return", "  -- why\n\n  return") + "\n-- the end\n";
    }
    let library = Library::compose(protocol(), sources).unwrap();
    assert_eq!((library.payload(), library.sha1()), (before.payload(), before.sha1()));
    let line = 1 + library.payload().lines().position(|line| line.contains("return item.add")).unwrap();
    assert_eq!(library.locate(&format!("user_function:{line}: x")), "transitions/put.lua:5: x");
}

#[test]
fn positions_outside_the_sources_stay_as_they_are() {
    let library = library();
    for message in ["user_function:1: x", "user_function: x", "user_defined", "", "user_function:99999: y"] {
        assert_eq!(library.locate(message), message);
    }
}

#[test]
fn a_misplaced_file_is_refused() {
    let refused = |path: &str| {
        let mut sources = tree();
        sources.push(source(path, "return {}"));
        Library::compose(protocol(), sources).map(|_| ()).unwrap_err()
    };
    assert_eq!(refused("transitions/other.lua"), "transitions/other.lua: protocol.json declares no such function");
    assert_eq!(refused("queries/put.lua"), "queries/put.lua: belongs in transitions/");
    assert_eq!(refused("lib/a-b.lua"), "lib/a-b.lua: its name is no Lua name");
    assert_eq!(refused("spare/x.lua"), "spare/x.lua: no folder of the library");
    let long = source("lib/long.lua", "return [[\n-- text\n]]");
    let refusal = Library::compose(protocol(), vec![long]).map(|_| ()).unwrap_err();
    assert!(refusal.starts_with("lib/long.lua: has [["), "{refusal}");
}

#[test]
fn the_embedded_tree_has_a_file_for_every_function() {
    let declared: Vec<&str> = Protocol::get().functions().map(|f| f.name.as_str()).collect();
    let present: Vec<&str> = Library::get().functions().map(|f| f.name.as_str()).collect();
    assert_eq!(declared, present);
}

#[test]
fn a_version_that_was_released_is_loaded_as_it_was_released() {
    let library = library().released_as(Some("#!lua name=demo_v3\n-- long ago"));
    assert_eq!(library.payload(), "#!lua name=demo_v3\n-- long ago");
    assert_eq!(library.sha1(), sha1("#!lua name=demo_v3\n-- long ago"));
    assert!(library.composed().contains("demo_v3_put"));
}
