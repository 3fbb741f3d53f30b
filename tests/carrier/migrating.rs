use _core::connection::Link;
use _core::error::Error;
use _core::library::Library;
use _core::migrate::{self, State};
use redis::Value;

use super::server::Server;
use super::{command, text};

async fn has_functions(link: &Link) -> bool {
    link.connection().await.unwrap().server().has_functions()
}

#[tokio::test]
async fn a_fresh_server_is_brought_up_to_date_once() {
    let server = Server::start();
    let link = server.link();
    let status = migrate::status(&link).await.unwrap();
    assert_eq!((status.installed, status.dirty, status.lock, status.data_version), (vec![], None, None, None));
    let functions = has_functions(&link).await;
    let expected: &[&str] = if functions { &["load ardiq_v1"] } else { &[] };
    assert_eq!(status.pending, expected);

    assert_eq!(migrate::apply(&link, None, false).await.unwrap(), expected);
    let status = migrate::status(&link).await.unwrap();
    assert_eq!((status.pending, status.dirty, status.lock, status.data_version), (vec![], None, None, Some(1)));
    if functions {
        assert_eq!(status.installed[0].state, State::Current);
        assert_eq!(status.installed[0].package.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    }
    assert!(migrate::apply(&link, None, false).await.unwrap().is_empty());
    assert!(migrate::prune(&link).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_library_loaded_by_hand_is_recorded() {
    let server = Server::start();
    let link = server.link();
    if !has_functions(&link).await {
        return;
    }
    command(&link, &["FUNCTION", "LOAD", &Library::get().payload()]).await;
    let status = migrate::status(&link).await.unwrap();
    assert_eq!((status.pending, status.installed[0].package.clone()), (vec![], None));
    assert!(migrate::apply(&link, None, false).await.unwrap().is_empty());
    let entry = text(&command(&link, &["HGET", "ardiq:schema", "v1"]).await);
    assert!(entry.contains(Library::get().sha1()), "{entry}");
}

#[tokio::test]
async fn an_unreleased_library_is_replaced_and_a_newer_one_left() {
    let server = Server::start();
    let link = server.link();
    if !has_functions(&link).await {
        return;
    }
    let other = "#!lua name=ardiq_v1\nredis.register_function('ardiq_v1_x', function() return 1 end)\n";
    command(&link, &["FUNCTION", "LOAD", other]).await;
    let newer = "#!lua name=ardiq_v2\nredis.register_function('ardiq_v2_x', function() return 1 end)\n";
    command(&link, &["FUNCTION", "LOAD", newer]).await;
    let states: Vec<State> = migrate::status(&link).await.unwrap().installed.iter().map(|l| l.state).collect();
    assert_eq!(states, [State::Different, State::Newer]);

    let entry = format!(r#"{{"sha1": "{}", "package": "999.0.0"}}"#, _core::library::sha1(other));
    command(&link, &["HSET", "ardiq:schema", "v1", &entry]).await;
    let refused = migrate::apply(&link, None, false).await.unwrap_err();
    assert!(matches!(&refused, Error::Library(text) if text.contains("999.0.0")), "{refused:?}");
    command(&link, &["DEL", "ardiq:schema"]).await;

    let done = migrate::apply(&link, None, false).await.unwrap();
    assert!(done[0].starts_with("replace ardiq_v1 (checksum "), "{done:?}");
    let states: Vec<State> = migrate::status(&link).await.unwrap().installed.iter().map(|l| l.state).collect();
    assert_eq!(states, [State::Current, State::Newer]);
    assert!(migrate::prune(&link).await.unwrap().is_empty(), "only older ones are dropped");
}

#[tokio::test]
async fn older_libraries_go_when_no_live_worker_uses_them() {
    let server = Server::start();
    let link = server.link();
    if !has_functions(&link).await {
        return;
    }
    migrate::apply(&link, None, false).await.unwrap();
    let older = "#!lua name=ardiq_v0\nredis.register_function('ardiq_v0_x', function() return 1 end)\n";
    command(&link, &["FUNCTION", "LOAD", older]).await;
    command(&link, &["SADD", "ardiq:queues", "mails"]).await;
    command(&link, &["ZADD", "ardiq:{mails}:workers", "1", "w:1"]).await;
    command(&link, &["HSET", "ardiq:{mails}:worker:w:1", "info", r#"{"protocol": 0}"#]).await;
    assert_eq!(migrate::prune(&link).await.unwrap(), ["keep ardiq_v0: live workers use it"]);
    command(&link, &["HSET", "ardiq:{mails}:worker:w:1", "info", "{}"]).await;
    assert_eq!(migrate::prune(&link).await.unwrap(), ["keep ardiq_v0: live workers use it"], "it does not say");
    command(&link, &["HSET", "ardiq:{mails}:worker:w:1", "info", r#"{"protocol": 1}"#]).await;
    assert_eq!(migrate::prune(&link).await.unwrap(), ["drop ardiq_v0"]);
    assert_eq!(migrate::status(&link).await.unwrap().installed.len(), 1);
}

#[tokio::test]
async fn two_do_not_migrate_at_once() {
    let server = Server::start();
    let link = server.link();
    command(&link, &["SET", "{ardiq:schema}:lock", "somebody", "PX", "60000"]).await;
    let refused = migrate::apply(&link, None, false).await.unwrap_err();
    assert!(refused.to_string().contains("(somebody)"), "{refused}");
    assert_eq!(migrate::status(&link).await.unwrap().lock.as_deref(), Some("somebody"));
    command(&link, &["DEL", "{ardiq:schema}:lock"]).await;
    migrate::apply(&link, None, false).await.unwrap();
    assert_eq!(command(&link, &["EXISTS", "{ardiq:schema}:lock"]).await, Value::Int(0));
}

#[tokio::test]
async fn what_was_interrupted_is_shown_and_finished() {
    let server = Server::start();
    let link = server.link();
    if !has_functions(&link).await {
        return;
    }
    migrate::apply(&link, None, false).await.unwrap();
    command(&link, &["HSET", "ardiq:schema", "dirty", "load ardiq_v1"]).await;
    let status = migrate::status(&link).await.unwrap();
    assert_eq!(status.dirty.as_deref(), Some("load ardiq_v1"));
    assert_eq!(status.pending, ["clear the mark of an interrupted step: load ardiq_v1"]);
    migrate::apply(&link, None, false).await.unwrap();
    assert_eq!(migrate::status(&link).await.unwrap().dirty, None);
}

#[tokio::test]
async fn unfit_servers_are_refused() {
    let server = Server::start();
    let link = server.link();
    command(&link, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    let refused = migrate::apply(&link, None, false).await.unwrap_err();
    assert!(refused.to_string().contains("allkeys-lru"), "{refused}");
    migrate::apply(&link, None, true).await.unwrap();
    command(&link, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    command(&link, &["HSET", "ardiq:schema", "data", "9"]).await;
    let refused = migrate::apply(&link, None, false).await.unwrap_err();
    assert!(refused.to_string().contains("version 9"), "{refused}");
    let refused = migrate::apply(&link, Some(2), false).await.unwrap_err();
    assert!(matches!(refused, Error::Argument(_)), "{refused:?}");
}

#[tokio::test]
async fn a_cluster_is_loaded_on_every_primary() {
    let servers = [(); 3].map(|()| Server::start_with(&["--cluster-enabled", "yes"]));
    let link = servers[0].link();
    if link.connection().await.unwrap().server().version < (7, 0, 0) {
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
    let done = migrate::apply(&link, None, false).await.unwrap();
    assert_eq!(done.len(), 3, "{done:?}");
    for server in &servers {
        let listed = command(&server.link(), &["FUNCTION", "LIST"]).await;
        assert!(matches!(&listed, Value::Array(libraries) if libraries.len() == 1), "{listed:?}");
        assert!(done.contains(&format!("load ardiq_v1 on 127.0.0.1:{}", server.port)), "{done:?}");
    }
    let status = migrate::status(&link).await.unwrap();
    assert_eq!((status.pending.len(), status.installed.len(), status.data_version), (0, 1, Some(1)));
    // A command is carried out where its key lies, whichever node was connected to.
    for (server, key) in servers.iter().zip(["a", "b", "c"]) {
        command(&server.link(), &["SET", key, "x"]).await;
        for other in &servers {
            assert_eq!(text(&command(&other.link(), &["GET", key]).await), "x");
        }
    }
}
