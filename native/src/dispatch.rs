//! One call of a library function: `FCALL` where the server has functions, else `EVALSHA`; loads
//! the library where it is missing; refuses another one. The only place that knows the difference.
//! Knows no function by name.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use redis::{Arg, Cmd, ServerError, Value};

use crate::connection::cluster::Moved;
use crate::connection::{Backoff, Connection, Link, refuse_error};
use crate::error::Error;
use crate::library::{Library, Script};
use crate::protocol::Function;
use crate::schema::{self, Record};

/// Calls functions on one queue. Cheap to clone.
#[derive(Clone)]
pub struct Dispatcher {
    inner: Arc<Shared>,
}

struct Shared {
    link: Link,
    base: String,
    library: &'static Library,
    /// Generation of the connection whose server was found fit.
    checked: AtomicU64,
    checking: tokio::sync::Mutex<()>,
    /// Whether the last server had functions: the form in which requests are built.
    form: Mutex<Form>,
    scripts: Mutex<HashMap<&'static str, Arc<Script>>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Functions,
    Scripts,
}

/// A call being built; may be sent again as it is.
pub struct Request {
    pub function: &'static Function,
    form: Form,
    cmd: Cmd,
    count: usize,
    size: usize,
}

impl Request {
    pub fn arg(&mut self, value: &[u8]) -> &mut Self {
        self.cmd.arg(value);
        self.count += 1;
        self.size += value.len();
        self
    }

    pub fn int(&mut self, value: i64) -> &mut Self {
        self.cmd.arg(value);
        self.count += 1;
        self.size += 8;
        self
    }

    /// Bytes of arguments so far, about.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The number of arguments so far.
    pub fn count(&self) -> usize {
        self.count
    }
}

/// Why a server could not be checked: what it or the line answered, or what was found.
enum Unfit {
    Answer(Result<Value, Error>),
    Refused(Error),
}

impl Dispatcher {
    /// `base` is the queue's base key, `ardiq:{name}:`.
    pub fn new(link: Link, base: &str) -> Self {
        Self::with_library(link, base, Library::get())
    }

    /// With another library than this build's, for tests.
    pub fn with_library(link: Link, base: &str, library: &'static Library) -> Self {
        let inner = Shared {
            link,
            base: base.to_owned(),
            library,
            checked: AtomicU64::new(0),
            checking: tokio::sync::Mutex::new(()),
            form: Mutex::new(Form::Functions),
            scripts: Mutex::new(HashMap::new()),
        };
        Self { inner: Arc::new(inner) }
    }

    pub fn base(&self) -> &str {
        &self.inner.base
    }

    /// The shared connection, for raw commands.
    pub fn link(&self) -> &Link {
        &self.inner.link
    }

    /// Starts a call; the name is checked here, the number of arguments in [`send`](Self::send).
    ///
    /// # Errors
    /// [`Error::Argument`] when the protocol has no such function.
    pub fn request(&self, function: &str) -> Result<Request, Error> {
        let function = self.inner.library.protocol().function(function)?;
        let form = *lock(&self.inner.form);
        let cmd = self.begin(function, form, 16, 512)?;
        Ok(Request { function, form, cmd, count: 0, size: 0 })
    }

    /// [`request`](Self::request), its arguments, and [`deliver`](Self::deliver) in one.
    ///
    /// # Errors
    /// As those.
    pub async fn call<A: AsRef<[u8]>>(&self, function: &str, args: &[A]) -> Result<Value, Error> {
        let mut request = self.request(function)?;
        for arg in args {
            request.arg(arg.as_ref());
        }
        self.deliver(&request, false).await
    }

    /// Sends a call, again where its reply is lost and the protocol says that this is harmless; or where the caller knows
    /// (`repeat`).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn deliver(&self, request: &Request, repeat: bool) -> Result<Value, Error> {
        if repeat || request.function.idempotent {
            self.send_until_answered(request).await
        } else {
            self.send(request).await
        }
    }

    /// Repeats nothing that may have been carried out.
    ///
    /// # Errors
    /// What [`Error`] says. Errors of single records stay in the reply as `Value::ServerError`.
    pub async fn send(&self, request: &Request) -> Result<Value, Error> {
        request.function.check(request.count)?;
        let mut attempts = self.inner.link.attempts();
        let mut loads = 0;
        loop {
            let connection = attempts.connection().await?;
            let answer = match self.check(&connection).await {
                Ok(form) if request.form == form => connection.exchange(&request.cmd).await,
                Ok(form) => connection.exchange(&self.rebuilt(request, form)?).await,
                Err(Unfit::Answer(answer)) => answer,
                Err(Unfit::Refused(error)) => return Err(error),
            };
            if let Ok(Value::ServerError(reply)) = &answer
                && is_missing(reply)
                && loads < 2
            {
                loads += 1;
                match self.load(&connection, request.function).await {
                    Ok(()) => continue,
                    Err(Unfit::Refused(error)) => return Err(error),
                    Err(Unfit::Answer(answer)) if attempts.again(&connection, &answer).await => continue,
                    Err(Unfit::Answer(answer)) => return self.conclude(request, answer),
                }
            }
            if !attempts.again(&connection, &answer).await {
                return self.conclude(request, answer);
            }
        }
    }

    /// As [`send`](Self::send), for a call that may be repeated: a lost reply is asked for again, for as long as one may
    /// wait for the server.
    ///
    /// # Errors
    /// As that.
    pub async fn send_until_answered(&self, request: &Request) -> Result<Value, Error> {
        let patience = self.inner.link.connector().options().broker_timeout;
        let mut backoff = Backoff::default();
        let mut lost_since: Option<Instant> = None;
        loop {
            match self.send(request).await {
                Err(error) if error.maybe_sent() => {
                    if lost_since.get_or_insert_with(Instant::now).elapsed() >= patience {
                        return Err(error);
                    }
                    tokio::time::sleep(backoff.pause()).await;
                }
                Err(Error::Broker { message, .. }) => return Err(Error::broker(message, lost_since.is_some())),
                answer => return answer,
            }
        }
    }

    /// How this server is called, having made sure once a connection that it is fit.
    async fn check(&self, connection: &Connection) -> Result<Form, Unfit> {
        let form = if connection.server().has_functions() { Form::Functions } else { Form::Scripts };
        if self.inner.checked.load(Ordering::Acquire) == connection.generation() {
            return Ok(form);
        }
        let _one_at_a_time = self.inner.checking.lock().await;
        if self.inner.checked.load(Ordering::Acquire) == connection.generation() {
            return Ok(form);
        }
        connection.server().require().map_err(Unfit::Refused)?;
        let record = match connection.exchange(&schema::read_command()).await {
            // Of no concern to who may not see it.
            Ok(Value::ServerError(reply)) if reply.code() == "NOPERM" => Record::default(),
            // It lies on another node of the cluster, which may be down: then this one's library has to do.
            Ok(Value::ServerError(reply)) if reply.code() == "MOVED" => self.record_elsewhere(&reply, connection).await,
            answer => Record::read(&settled(answer)?),
        };
        record.check().map_err(Unfit::Refused)?;
        if form == Form::Functions {
            self.check_library(connection, &record).await?;
        }
        *lock(&self.inner.form) = form;
        self.inner.checked.store(connection.generation(), Ordering::Release);
        Ok(form)
    }

    async fn record_elsewhere(&self, reply: &ServerError, connection: &Connection) -> Record {
        let read = async {
            let place = Moved::read(reply)?.from(connection).ok()?;
            let node = self.inner.link.connector().only(place).connect().await.ok()?;
            Record::fetch(&node).await.ok()
        };
        read.await.unwrap_or_default()
    }

    async fn check_library(&self, connection: &Connection, record: &Record) -> Result<(), Unfit> {
        let protocol = self.inner.library.protocol();
        let found = match connection.exchange(&schema::list_command(&protocol.library)).await {
            Ok(Value::ServerError(reply)) if reply.code() == "NOPERM" => {
                // The record is all there is to go by.
                record.of(protocol.version, "sha1").map(str::to_owned)
            }
            answer => {
                let installed = schema::read_list(&settled(answer)?);
                match installed.into_iter().find(|library| library.version == protocol.version) {
                    Some(library) => Some(library.sha1),
                    None => return self.load_library(connection).await,
                }
            }
        };
        match found {
            Some(sha1) if sha1 != self.inner.library.sha1() => Err(Unfit::Refused(self.different(&sha1))),
            _ => Ok(()),
        }
    }

    fn different(&self, found: &str) -> Error {
        let name = &self.inner.library.protocol().library;
        Error::Library(format!(
            "the server's library {name} is not this build's (checksum {}…, not {}…): run `ardiq migrate`, or \
             install the Ardiq that loaded it",
            &found[..8.min(found.len())],
            &self.inner.library.sha1()[..8]
        ))
    }

    /// A server that lost its library (fresh, flushed, failed over) must not stop a fleet: whoever
    /// notices first loads it.
    async fn load(&self, connection: &Connection, function: &'static Function) -> Result<(), Unfit> {
        if connection.server().has_functions() {
            return self.load_library(connection).await;
        }
        let script = self.script(function).map_err(Unfit::Refused)?;
        let answer = connection.exchange(redis::cmd("SCRIPT").arg("LOAD").arg(&script.source)).await;
        settled(answer).map(drop)
    }

    async fn load_library(&self, connection: &Connection) -> Result<(), Unfit> {
        let library = self.inner.library;
        let protocol = library.protocol();
        match schema::load(connection, &library.payload(), false).await {
            Ok(()) => {
                // Only for people to read: what the server holds counts.
                if let Ok(home) = self.inner.link.holding(schema::key()).await {
                    let _ = schema::record(&home, protocol.version, library.sha1()).await;
                }
                Ok(())
            }
            Err(Error::Library(message)) if message.contains("already exists") => {
                // Another process was faster.
                let answer = connection.exchange(&schema::list_command(&protocol.library)).await;
                match schema::read_list(&settled(answer)?).first() {
                    Some(found) if found.sha1 != library.sha1() => Err(Unfit::Refused(self.different(&found.sha1))),
                    _ => Ok(()),
                }
            }
            Err(Error::Broker { message, maybe_sent: true }) => Err(Unfit::Answer(Err(Error::broker(message, false)))),
            Err(Error::Broker { message, .. }) => Err(Unfit::Refused(Error::Library(format!(
                "the server lacks the library {} and it cannot be loaded from here: run `ardiq migrate` ({message})",
                protocol.library
            )))),
            Err(error) => Err(Unfit::Refused(error)),
        }
    }

    /// The command up to the arguments.
    fn begin(&self, function: &'static Function, form: Form, args: usize, bytes: usize) -> Result<Cmd, Error> {
        let mut cmd = Cmd::with_capacity(args + 4, bytes + 64);
        match form {
            Form::Functions => cmd.arg(b"FCALL").arg(&function.server_name),
            Form::Scripts => cmd.arg(b"EVALSHA").arg(&self.script(function)?.sha1),
        };
        cmd.arg(b"1").arg(&self.inner.base);
        Ok(cmd)
    }

    /// The request for a server of the other kind than it was built for.
    fn rebuilt(&self, request: &Request, form: Form) -> Result<Cmd, Error> {
        let mut cmd = self.begin(request.function, form, request.count, request.size)?;
        for arg in request.cmd.args_iter().skip(4) {
            if let Arg::Simple(bytes) = arg {
                cmd.arg(bytes);
            }
        }
        Ok(cmd)
    }

    fn script(&self, function: &'static Function) -> Result<Arc<Script>, Error> {
        if let Some(script) = lock(&self.inner.scripts).get(function.name.as_str()) {
            return Ok(script.clone());
        }
        let script = Arc::new(self.inner.library.script(&function.name)?);
        lock(&self.inner.scripts).insert(&function.name, script.clone());
        Ok(script)
    }

    fn conclude(&self, request: &Request, answer: Result<Value, Error>) -> Result<Value, Error> {
        refuse_error(answer?).map_err(|error| {
            error.map_message(|message| match lock(&self.inner.scripts).get(request.function.name.as_str()) {
                Some(script) if message.contains("user_script:") => script.locate(message),
                _ => self.inner.library.locate(message),
            })
        })
    }
}

/// An answer to a question that precedes the caller's request, which has not been sent yet.
fn settled(answer: Result<Value, Error>) -> Result<Value, Unfit> {
    match answer {
        Ok(Value::ServerError(reply)) => Err(Unfit::Answer(Ok(Value::ServerError(reply)))),
        Ok(value) => Ok(value),
        Err(error) => Err(Unfit::Answer(Err(Error::broker(error.to_string(), false)))),
    }
}

fn is_missing(reply: &ServerError) -> bool {
    reply.code() == "NOSCRIPT" || reply.details().is_some_and(|text| text.starts_with("Function not found"))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
