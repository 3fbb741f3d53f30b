use std::time::Duration;

use _core::call::dispatch::Dispatcher;
use _core::call::migrate::{self, State};
use _core::call::schema::{Libraries, before, library_name};
use _core::lua::library::{Library, release, sha1};
use _core::lua::protocol::Protocol;
use _core::wire::connection::Link;
use _core::wire::error::Error;
use redis::Value;

use super::server::Server;
use super::{command, text};

/// The version of this build.
fn mine() -> u32 {
    Protocol::get().version
}

/// A library of a version, of something else.
fn library(version: u32) -> String {
    let name = library_name(version);
    format!("#!lua name={name}\nredis.register_function('{name}_x', function() return 1 end)\n")
}

async fn has_functions(link: &Link) -> bool {
    matches!(Libraries::ask(&link.connection().await.unwrap()).await.unwrap(), Libraries::Are(_))
}

#[tokio::test]
async fn a_fresh_server_is_brought_up_to_date_once() {
    let server = Server::start();
    let link = server.link();
    let status = migrate::status(&link, "ardiq").await.unwrap();
    assert_eq!((status.installed, status.dirty, status.lock, status.data_version), (vec![], None, None, None));
    let functions = has_functions(&link).await;
    let expected: Vec<String> = functions.then(|| format!("load {}", library_name(mine()))).into_iter().collect();
    assert_eq!(status.pending, expected);

    assert_eq!(migrate::apply(&link, "ardiq", None, false).await.unwrap(), expected);
    let status = migrate::status(&link, "ardiq").await.unwrap();
    // The version before may come, too.
    let data = Some(before(mine()));
    assert_eq!((status.pending, status.dirty, status.lock, status.data_version), (vec![], None, None, data));
    if functions {
        assert_eq!(status.installed[0].state, State::Current);
        assert_eq!(status.installed[0].package.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    }
    assert!(migrate::apply(&link, "ardiq", None, false).await.unwrap().is_empty());
    assert!(migrate::prune(&link, "ardiq", false).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_library_loaded_by_hand_is_recorded() {
    let server = Server::start();
    let link = server.link();
    if !has_functions(&link).await {
        return;
    }
    command(&link, &["FUNCTION", "LOAD", &Library::get().payload()]).await;
    let status = migrate::status(&link, "ardiq").await.unwrap();
    assert_eq!((status.pending, status.installed[0].package.clone()), (vec![], None));
    assert!(migrate::apply(&link, "ardiq", None, false).await.unwrap().is_empty());
    let entry = text(&command(&link, &["HGET", "ardiq:schema", &format!("v{}", mine())]).await);
    assert!(entry.contains(Library::get().sha1()), "{entry}");
}

#[tokio::test]
async fn an_unreleased_library_is_replaced_and_a_newer_one_left() {
    let server = Server::start();
    let link = server.link();
    if !has_functions(&link).await {
        return;
    }
    let other = library(mine());
    command(&link, &["FUNCTION", "LOAD", &other]).await;
    command(&link, &["FUNCTION", "LOAD", &library(mine() + 1)]).await;
    let states: Vec<State> = migrate::status(&link, "ardiq").await.unwrap().installed.iter().map(|l| l.state).collect();
    assert_eq!(states, [State::Different, State::Newer]);

    let is_released = release(mine()).is_some();
    let entry = format!(r#"{{"sha1": "{}", "package": "999.0.0"}}"#, sha1(&other));
    command(&link, &["HSET", "ardiq:schema", &format!("v{}", mine()), &entry]).await;
    let refused = migrate::apply(&link, "ardiq", None, false).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Library(text) if text.contains(if is_released { "was released" } else { "999.0.0" }))
    );
    command(&link, &["DEL", "ardiq:schema"]).await;

    let done = migrate::apply(&link, "ardiq", None, is_released).await.unwrap();
    assert!(done[0].starts_with(&format!("replace {} (checksum ", library_name(mine()))), "{done:?}");
    let states: Vec<State> = migrate::status(&link, "ardiq").await.unwrap().installed.iter().map(|l| l.state).collect();
    assert_eq!(states, [State::Current, State::Newer]);
    assert!(migrate::prune(&link, "ardiq", false).await.unwrap().is_empty(), "only older ones are dropped");
}

#[tokio::test]
async fn older_libraries_go_when_no_live_worker_uses_them() {
    let server = Server::start();
    let link = server.link();
    if !has_functions(&link).await {
        return;
    }
    migrate::apply(&link, "ardiq", None, false).await.unwrap();
    command(&link, &["FUNCTION", "LOAD", &library(0)]).await;
    for (base, queue) in [("ardiq:{mails}:", "mails"), ("shop:{mails}:", "mails (prefix shop)")] {
        let keep = [format!("keep ardiq_v0: live workers of the queue {queue} use it")];
        let (workers, row) = (format!("{base}workers"), format!("{base}worker:w:1"));
        // In no registry: a queue is found by its keys, even one whose first worker has only just joined.
        command(&link, &["ZADD", &workers, "9999999999999", "w:1"]).await;
        command(&link, &["HSET", &row, "info", r#"{"protocol": 0}"#]).await;
        assert_eq!(migrate::prune(&link, "ardiq", false).await.unwrap(), keep);
        command(&link, &["HSET", &row, "info", "{}"]).await;
        assert_eq!(migrate::prune(&link, "ardiq", false).await.unwrap(), keep, "it does not say");
        command(&link, &["HSET", &row, "info", &format!(r#"{{"protocol": {}}}"#, mine())]).await;
    }
    command(&link, &["ZADD", "ardiq:{gone}:workers", "1", "w:2"]).await;
    command(&link, &["HSET", "ardiq:{gone}:worker:w:2", "info", r#"{"protocol": 0}"#]).await;
    assert_eq!(migrate::prune(&link, "ardiq", false).await.unwrap(), ["drop ardiq_v0"], "its lease is over");
    assert_eq!(migrate::status(&link, "ardiq").await.unwrap().installed.len(), 1);
}

#[tokio::test]
async fn a_pruned_version_stays_gone() {
    let server = Server::start();
    let link = server.link();
    if !has_functions(&link).await {
        return;
    }
    // Of both prefixes clients are connected when the next version is all there is to be.
    let old = ["ardiq:{q}:", "shop:{q}:"].map(|base| Dispatcher::new(server.link(), base));
    for dispatcher in &old {
        dispatcher.call("enqueue", &["t1", "add", "default", "[]", "", ""]).await.unwrap();
    }
    command(&link, &["FUNCTION", "LOAD", &library(mine() + 1)]).await;
    let drop = format!("drop {}", library_name(mine()));
    assert_eq!(migrate::prune_below(&link, "ardiq", mine() + 1, false).await.unwrap(), [drop]);
    for dispatcher in old {
        for dispatcher in [dispatcher.clone(), Dispatcher::new(server.link(), dispatcher.base())] {
            let refused = dispatcher.call::<&str>("counts", &[]).await.unwrap_err();
            assert!(matches!(&refused, Error::Library(said) if said.contains("install a newer")), "{refused:?}");
        }
    }
    let Libraries::Are(left) = Libraries::ask(&link.connection().await.unwrap()).await.unwrap() else { panic!() };
    assert_eq!(left.iter().map(|library| library.version).collect::<Vec<_>>(), [mine() + 1]);
}

#[tokio::test]
async fn who_cannot_see_other_prefixes_prunes_only_with_force() {
    let server = Server::start();
    let admin = server.link();
    if !has_functions(&admin).await {
        return;
    }
    migrate::apply(&admin, "ardiq", None, false).await.unwrap();
    command(&admin, &["HSET", "ardiq:{q}:meta", "token", "1"]).await;
    command(&admin, &["HSET", "shop:{q}:meta", "token", "1"]).await;
    for rights in [["+@all", "-scan", "~shop:*"], ["+@all", "+scan", "~shop:*"]] {
        command(&admin, &["FUNCTION", "LOAD", "REPLACE", &library(0)]).await;
        command(&admin, &[&["ACL", "SETUSER", "me", "reset", "on", ">secret"][..], &rights].concat()).await;
        let link = super::server::link(&format!("redis://me:secret@127.0.0.1:{}", server.port));
        migrate::apply(&link, "shop", None, false).await.unwrap();
        let refused = migrate::prune(&link, "shop", false).await.unwrap_err();
        assert!(matches!(&refused, Error::Library(said) if said.contains("--force")), "{refused:?}");
        assert_eq!(migrate::prune(&link, "shop", true).await.unwrap(), ["drop ardiq_v0"]);
    }
}

#[tokio::test]
async fn two_do_not_migrate_at_once() {
    let server = Server::start();
    let link = server.link();
    command(&link, &["SET", "ardiq:lock:{ardiq:schema}", "somebody", "PX", "60000"]).await;
    let refused = migrate::apply(&link, "ardiq", None, false).await.unwrap_err();
    assert!(refused.to_string().contains("(somebody)"), "{refused}");
    assert_eq!(migrate::status(&link, "ardiq").await.unwrap().lock.as_deref(), Some("somebody"));
    command(&link, &["DEL", "ardiq:lock:{ardiq:schema}"]).await;
    migrate::apply(&link, "ardiq", None, false).await.unwrap();
    assert_eq!(command(&link, &["EXISTS", "ardiq:lock:{ardiq:schema}"]).await, Value::Int(0));
}

#[tokio::test]
async fn what_was_interrupted_is_shown_and_finished() {
    let server = Server::start();
    let link = server.link();
    if !has_functions(&link).await {
        return;
    }
    migrate::apply(&link, "ardiq", None, false).await.unwrap();
    let step = format!("load {}", library_name(mine()));
    command(&link, &["HSET", "ardiq:schema", "dirty", &step]).await;
    let status = migrate::status(&link, "ardiq").await.unwrap();
    assert_eq!(status.dirty.as_deref(), Some(step.as_str()));
    assert_eq!(status.pending, [format!("clear the mark of an interrupted step: {step}")]);
    migrate::apply(&link, "ardiq", None, false).await.unwrap();
    assert_eq!(migrate::status(&link, "ardiq").await.unwrap().dirty, None);
}

#[tokio::test]
async fn unfit_servers_are_refused() {
    let server = Server::start();
    let link = server.link();
    command(&link, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    let refused = migrate::apply(&link, "ardiq", None, false).await.unwrap_err();
    assert!(refused.to_string().contains("allkeys-lru"), "{refused}");
    migrate::apply(&link, "ardiq", None, true).await.unwrap();
    command(&link, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    command(&link, &["HSET", "ardiq:schema", "data", "9"]).await;
    let refused = migrate::apply(&link, "ardiq", None, false).await.unwrap_err();
    assert!(refused.to_string().contains("version 9"), "{refused}");
    let refused = migrate::apply(&link, "ardiq", Some(mine() + 1), false).await.unwrap_err();
    assert!(matches!(refused, Error::Argument(_)), "{refused:?}");
}

#[tokio::test]
async fn a_cluster_is_loaded_on_every_primary() {
    let servers = [(); 3].map(|()| Server::start_with(&["--cluster-enabled", "yes"]));
    let link = servers[0].link();
    if !has_functions(&link).await {
        return;
    }
    for (index, server) in servers.iter().enumerate() {
        let (first, last) = [("0", "5000"), ("5001", "11000"), ("11001", "16383")][index];
        command(&server.link(), &["CLUSTER", "ADDSLOTSRANGE", first, last]).await;
        if index > 0 {
            command(&link, &["CLUSTER", "MEET", "127.0.0.1", &server.port.to_string()]).await;
        }
    }
    for server in &servers {
        let link = server.link();
        loop {
            let info = text(&command(&link, &["CLUSTER", "INFO"]).await);
            if info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3") {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    let done = migrate::apply(&link, "ardiq", None, false).await.unwrap();
    assert_eq!(done.len(), 3, "{done:?}");
    for server in &servers {
        let listed = command(&server.link(), &["FUNCTION", "LIST"]).await;
        assert!(matches!(&listed, Value::Array(libraries) if libraries.len() == 1), "{listed:?}");
        assert!(done.contains(&format!("load {} on 127.0.0.1:{}", library_name(mine()), server.port)), "{done:?}");
    }
    let status = migrate::status(&link, "ardiq").await.unwrap();
    assert_eq!((status.pending.len(), status.installed.len(), status.data_version), (0, 1, Some(before(mine()))));
    // A command is carried out where its key lies, whichever node was connected to.
    for (server, key) in servers.iter().zip(["a", "b", "c"]) {
        command(&server.link(), &["SET", key, "x"]).await;
        for other in &servers {
            assert_eq!(text(&command(&other.link(), &["GET", key]).await), "x");
        }
    }
}

#[tokio::test]
async fn the_lock_is_renewed_and_only_its_holder_frees_it() {
    let server = Server::start();
    let link = server.link();
    let home = link.connection().await.unwrap();
    let ttl = Duration::from_secs(1);
    let work = async {
        for _ in 0..2 {
            tokio::time::sleep(ttl).await;
            let other = migrate::locked(&home, "lock", ttl, async { Ok(()) }).await;
            assert!(other.is_err(), "the lock ran out");
        }
        Ok(7)
    };
    assert_eq!(migrate::locked(&home, "lock", ttl, work).await, Ok(7));
    assert_eq!(command(&link, &["EXISTS", "lock"]).await, Value::Int(0));

    let taken = async {
        command(&link, &["SET", "lock", "another's"]).await;
        std::future::pending().await
    };
    let lost = migrate::locked::<()>(&home, "lock", ttl, taken).await.unwrap_err();
    assert!(matches!(&lost, Error::Library(said) if said.contains("run it again")), "{lost:?}");
    assert_eq!(text(&command(&link, &["GET", "lock"]).await), "another's");
}
