use _core::call::dispatch::Dispatcher;
use _core::call::schema::Libraries;
use _core::lua::library::{Library, Source};
use _core::lua::protocol::Protocol;
use _core::wire::error::Error;
use redis::Value;

use super::server::{Server, link};
use super::{BASE, command, text, try_command, user};

const ONE: [&str; 6] = ["t1", "add", "default", "[]", "", ""];

fn dispatcher(server: &Server) -> Dispatcher {
    Dispatcher::new(server.link(), BASE)
}

async fn has_functions(dispatcher: &Dispatcher) -> bool {
    let connection = dispatcher.link().connection().await.unwrap();
    matches!(Libraries::ask(&connection).await.unwrap(), Libraries::Are(_))
}

/// A library of the name and version of this build's, of one function.
fn other_library(body: &str) -> &'static Library {
    let source = Source { path: "queries/counts.lua".to_owned(), text: body.to_owned() };
    Box::leak(Box::new(Library::compose(Protocol::get(), vec![source]).unwrap()))
}

#[tokio::test]
async fn a_fresh_server_is_given_the_library() {
    let server = Server::start();
    let dispatcher = dispatcher(&server);
    let reply = dispatcher.call("enqueue", &ONE).await.unwrap();
    assert_eq!(reply, Value::Array(vec![Value::BulkString(b"queued".to_vec())]));
    if has_functions(&dispatcher).await {
        let entry = text(
            &command(dispatcher.link(), &["HGET", "ardiq:schema", &format!("v{}", Protocol::get().version)]).await,
        );
        assert!(entry.contains(Library::get().sha1()), "{entry}");
    }
}

#[tokio::test]
async fn many_may_notice_at_once_that_it_lacks_the_library() {
    let server = Server::start();
    let mut calls = Vec::new();
    for _ in 0..8 {
        let dispatcher = dispatcher(&server);
        for _ in 0..20 {
            let dispatcher = dispatcher.clone();
            calls.push(tokio::spawn(async move { dispatcher.call::<&str>("counts", &[]).await }));
        }
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_flushed_server_is_given_it_again() {
    let server = Server::start();
    let dispatcher = dispatcher(&server);
    dispatcher.call("enqueue", &ONE).await.unwrap();
    command(dispatcher.link(), &["FLUSHALL"]).await;
    let what = if has_functions(&dispatcher).await { "FUNCTION" } else { "SCRIPT" };
    command(dispatcher.link(), &[what, "FLUSH"]).await;
    dispatcher.call("enqueue", &ONE).await.unwrap();
}

#[tokio::test]
async fn a_request_may_be_sent_again() {
    let server = Server::start();
    let dispatcher = dispatcher(&server);
    let mut request = dispatcher.request("task").unwrap();
    request.arg(b"t1");
    assert_eq!((request.count(), request.size()), (1, 2));
    assert_eq!(dispatcher.send(&request).await.unwrap(), Value::Array(vec![]));
    dispatcher.call("enqueue", &ONE).await.unwrap();
    assert_ne!(dispatcher.send(&request).await.unwrap(), Value::Array(vec![]));
}

#[tokio::test]
async fn a_request_fits_whatever_server_comes_up() {
    let server = Server::start();
    let dispatcher = dispatcher(&server);
    // Built before the kind of server is known.
    let mut request = dispatcher.request("list").unwrap();
    request.arg(b"queued").arg(b"default").int(0).int(10);
    assert_eq!(dispatcher.send(&request).await.unwrap(), Value::Array(vec![]));
}

#[tokio::test]
async fn calls_that_do_not_fit_are_not_sent() {
    let server = Server::start();
    let dispatcher = dispatcher(&server);
    assert!(matches!(dispatcher.request("no_such"), Err(Error::Argument(_))));
    assert!(matches!(dispatcher.call("task", &["a", "b"]).await, Err(Error::Argument(_))));
    let refused = dispatcher.call("list", &["queued", "default", "many", "10"]).await.unwrap_err();
    assert!(refused.is("BAD_ARGUMENT"), "{refused:?}");
    assert_eq!(refused.to_string(), "list: offset is not an integer from 0");
}

#[tokio::test]
async fn another_library_of_the_same_version_is_refused_until_it_is_replaced() {
    let server = Server::start();
    let dispatcher = dispatcher(&server);
    if !has_functions(&dispatcher).await {
        return;
    }
    let other = other_library("return function() return {} end").payload();
    command(dispatcher.link(), &["FUNCTION", "LOAD", &other]).await;
    let refused = dispatcher.call("enqueue", &ONE).await.unwrap_err();
    assert!(matches!(&refused, Error::Library(text) if text.contains("ardiq migrate")), "{refused:?}");
    command(dispatcher.link(), &["FUNCTION", "LOAD", "REPLACE", &Library::get().payload()]).await;
    dispatcher.call("enqueue", &ONE).await.unwrap();
}

#[tokio::test]
async fn data_of_a_newer_version_is_refused() {
    let server = Server::start();
    let dispatcher = dispatcher(&server);
    command(dispatcher.link(), &["HSET", "ardiq:schema", "data", "7"]).await;
    let refused = dispatcher.call("enqueue", &ONE).await.unwrap_err();
    assert!(matches!(&refused, Error::Library(text) if text.contains("version 7")), "{refused:?}");
}

#[tokio::test]
async fn who_may_only_call_calls() {
    let server = Server::start();
    let admin = dispatcher(&server);
    if !has_functions(&admin).await {
        return;
    }
    user(admin.link(), &["+fcall", "+@hash", "+@list", "+@sortedset", "+@set", "+@string", "+@keyspace", "+time"])
        .await;
    let url = format!("redis://me:secret@127.0.0.1:{}", server.port);
    let refused = Dispatcher::new(link(&url), BASE).call("enqueue", &ONE).await.unwrap_err();
    assert!(matches!(&refused, Error::Library(text) if text.contains("ardiq migrate")), "{refused:?}");
    admin.call::<&str>("counts", &[]).await.unwrap();
    Dispatcher::new(link(&url), BASE).call("enqueue", &ONE).await.unwrap();
    user(admin.link(), &["+@hash"]).await;
    let refused = Dispatcher::new(link(&url), BASE).call("enqueue", &ONE).await.unwrap_err();
    assert!(matches!(&refused, Error::Forbidden { maybe_sent: false, .. }), "{refused:?}");
}

#[tokio::test]
async fn a_full_server_takes_no_work_and_lets_it_be_drained() {
    let server = Server::start();
    let dispatcher = dispatcher(&server);
    dispatcher.call("enqueue", &ONE).await.unwrap();
    // The library is on the server: loading it counts as adding data.
    dispatcher.call("purge", &["queued", "none", "0", "1", "0"]).await.unwrap();
    command(dispatcher.link(), &["CONFIG", "SET", "maxmemory", "1"]).await;
    let refused = dispatcher.call("enqueue", &ONE).await.unwrap_err();
    assert!(matches!(&refused, Error::OutOfMemory(_)), "{refused:?}");
    let refused = dispatcher.call("requeue", &["t1"]).await.unwrap_err();
    assert!(matches!(&refused, Error::OutOfMemory(_)), "{refused:?}");
    dispatcher.call("purge", &["queued", "default", "0", "10", "0"]).await.unwrap();
    dispatcher.call("abort", &["t1", "0"]).await.unwrap();
    let counts = dispatcher.call::<&str>("counts", &[]).await.unwrap();
    let Value::Array(counts) = counts else { panic!("{counts:?}") };
    assert_eq!(counts[3], Value::Int(0), "{counts:?}");
}

#[tokio::test]
async fn a_key_of_another_type_is_told() {
    let server = Server::start();
    let dispatcher = dispatcher(&server);
    command(dispatcher.link(), &["SET", &format!("{BASE}task:t1"), "by hand"]).await;
    let refused = dispatcher.call("task", &["t1"]).await.unwrap_err();
    assert!(refused.is("WRONG_TYPE"), "{refused:?}");
}

#[tokio::test]
async fn a_mistake_in_the_lua_is_told_with_its_place() {
    let server = Server::start();
    let library = other_library("-- a mistake\nreturn function(base)\n  return base.x.y\nend");
    let dispatcher = Dispatcher::with_library(server.link(), BASE, library);
    let told = dispatcher.call::<&str>("counts", &[]).await.unwrap_err();
    assert!(
        matches!(&told, Error::Script(text) if text.contains("queries/counts.lua:3: attempt to index")),
        "{told:?}"
    );
}

#[tokio::test]
async fn an_unknown_command_is_no_refusal_of_ours() {
    let server = Server::start();
    let error = try_command(&server.link(), &["NONSENSE"]).await.unwrap_err();
    assert!(matches!(&error, Error::Script(text) if text.contains("unknown command")), "{error:?}");
}
