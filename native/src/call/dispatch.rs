//! One call of a library function: `FCALL` where the server has functions, else `EVALSHA`; loads
//! the library where it is missing; refuses another one. The only place that knows the difference.
//! Knows no function by name.

mod begun;
mod compatibility;
mod replication;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, Value};

use crate::call::args::Arg;
use crate::lua::library::{Library, Script};
use crate::lua::protocol::Function;
use crate::wire::clock::{Instant, timeout_at};
use crate::wire::connection::{Attempts, Begun, Connection, Link, refuse_error};
use crate::wire::error::Error;
use crate::wire::packed::{pack, unpack};
use compatibility::{Missing, Unfit};

/// Calls functions on one queue. Cheap to clone.
#[derive(Clone)]
pub struct Dispatcher {
    inner: Arc<Shared>,
}

struct Shared {
    link: Link,
    base: String,
    common: Arc<Common>,
    /// Where a replica must have what is durable: the way on which that is waited for.
    confirming: Option<Dispatcher>,
}

/// The same for all queues of a server under one prefix.
struct Common {
    library: &'static Library,
    /// How the last server was called that was found fit.
    form: AtomicU8,
    /// Why calls are scripts there.
    no_functions: Mutex<Option<Unfit>>,
    scripts: Mutex<HashMap<&'static str, Arc<Script>>>,
    /// Of arguments that wait for their call.
    waiting_bytes: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Functions = 1,
    Scripts,
    /// A script that cannot be loaded beforehand.
    Sources,
    /// Functions, of which the user may call queries alone.
    Reads,
}

/// A call being built; may be sent again as it is.
pub struct Request {
    pub function: &'static Function,
    form: Form,
    cmd: Cmd,
    count: usize,
    size: usize,
    /// Its records are one argument, and so is its reply.
    is_packed: bool,
}

/// From so many records on it is cheaper for the server to unpack them than to be given each field by itself.
const PACKED_FROM: usize = 4;

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

    /// The records that follow the function's own arguments, field by field.
    pub fn records<'a>(&mut self, fields: impl ExactSizeIterator<Item = &'a [u8]>, bytes: usize) -> &mut Self {
        let width = self.function.tail.as_ref().map_or(0, |tail| tail.fields.len());
        if width < 2 || fields.len() < width * PACKED_FROM {
            for field in fields {
                self.arg(field);
            }
            return self;
        }
        self.is_packed = true;
        self.count += fields.len();
        self.size += bytes;
        self.cmd.arg(pack(fields, bytes));
        self
    }

    /// The function's own arguments by name, whatever their order; records follow them.
    ///
    /// # Errors
    /// [`Error::Argument`] when the protocol has others.
    pub fn named(&mut self, given: &[(&str, Arg<'_>)]) -> Result<&mut Self, Error> {
        let declared = &self.function.args;
        let refuse = |what: String| Error::Argument(format!("{} {what}", self.function.name));
        if given.len() > declared.len() {
            return Err(refuse(format!("takes {} arguments by name, got {}", declared.len(), given.len())));
        }
        for (at, declared) in declared.iter().enumerate() {
            // Mostly they come in this order.
            let mut from_here = given[at.min(given.len())..].iter().chain(given);
            match from_here.find(|(name, _)| *name == declared.name) {
                Some((_, Arg::Bytes(bytes))) => self.arg(bytes),
                Some((_, Arg::Int(number))) => self.int(*number),
                None => return Err(refuse(format!("takes an argument `{}`, which it was not given", declared.name))),
            };
        }
        Ok(self)
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

impl Dispatcher {
    /// `base` is the queue's base key, `ardiq:{name}:`.
    pub fn new(link: Link, base: &str) -> Self {
        Self::with_library(link, base, Library::get())
    }

    /// With another library than this build's, for tests.
    pub fn with_library(link: Link, base: &str, library: &'static Library) -> Self {
        let common = Common {
            library,
            form: AtomicU8::new(Form::Functions as u8),
            no_functions: Mutex::new(None),
            scripts: Mutex::new(HashMap::new()),
            waiting_bytes: Arc::default(),
        };
        Self::of(link, base, Arc::new(common), None)
    }

    fn of(link: Link, base: &str, common: Arc<Common>, confirming: Option<Self>) -> Self {
        Self { inner: Arc::new(Shared { link, base: base.to_owned(), common, confirming }) }
    }

    /// The same for another queue under the same prefix: on the same connections, as far as one server has both.
    #[must_use]
    pub fn on(&self, base: &str) -> Self {
        let Shared { link, common, confirming, .. } = &*self.inner;
        Self::of(link.for_key(base), base, common.clone(), confirming.as_ref().map(|confirming| confirming.on(base)))
    }

    /// The same on connections of its own, for another runtime.
    #[must_use]
    pub fn apart(&self) -> Self {
        let Shared { link, base, common, confirming } = &*self.inner;
        Self::of(link.another(), base, common.clone(), confirming.as_ref().map(Self::apart))
    }

    pub fn base(&self) -> &str {
        &self.inner.base
    }

    /// The shared connection, for raw commands.
    pub fn link(&self) -> &Link {
        &self.inner.link
    }

    /// How many bytes of arguments wait for their call, of all queues.
    pub fn waiting_bytes(&self) -> &Arc<AtomicUsize> {
        &self.inner.common.waiting_bytes
    }

    /// Starts a call; the name is checked here, the number of arguments in [`send`](Self::send).
    ///
    /// # Errors
    /// [`Error::Argument`] when the protocol has no such function.
    pub fn request(&self, function: &str) -> Result<Request, Error> {
        let function = self.inner.common.library.protocol().function(function)?;
        let form = self.form();
        let cmd = self.begin(function, form, 16, 512)?;
        Ok(Request { function, form, cmd, count: 0, size: 0, is_packed: false })
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
    /// (`repeat`). All of it takes no longer than the broker timeout.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn deliver(&self, request: &Request, repeat: bool) -> Result<Value, Error> {
        self.deliver_within(Duration::MAX, request, repeat).await
    }

    /// The same for who has less time.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn deliver_within(&self, within: Duration, request: &Request, repeat: bool) -> Result<Value, Error> {
        self.deliver_until(self.deadline(within), request, repeat).await
    }

    /// Until when a call has that begins now and has so much time.
    pub fn deadline(&self, within: Duration) -> Instant {
        Instant::now() + within.min(self.inner.link.connector().options().broker_timeout)
    }

    /// The same, of a call that has until then.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn deliver_until(&self, deadline: Instant, request: &Request, repeat: bool) -> Result<Value, Error> {
        self.deliver_begun(deadline, request, repeat, None).await
    }

    /// The same, after a first try.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn deliver_begun(
        &self,
        deadline: Instant,
        request: &Request,
        repeat: bool,
        begun: Option<Begun>,
    ) -> Result<Value, Error> {
        let confirming = self.inner.confirming.as_ref().filter(|_| request.function.durable);
        let way = confirming.unwrap_or(self);
        let mut attempts = way.inner.link.attempts_until(deadline);
        // What was sent may be answered by now.
        if begun.is_none() && deadline <= Instant::now() {
            return Err(attempts.late());
        }
        attempts = attempts.begun(begun);
        let answer = timeout_at(deadline, async {
            let repeat = repeat || request.function.idempotent;
            match confirming {
                Some(_) => way.send_confirmed(request, repeat, &mut attempts).await,
                None => way.send_until_answered(request, repeat, &mut attempts).await.map(|(value, _)| value),
            }
        });
        answer.await.unwrap_or_else(|_| Err(attempts.late()))
    }

    /// For who has time limits of his own: the broker timeout is for the way to the server alone. Repeats nothing that may
    /// have been carried out.
    ///
    /// # Errors
    /// What [`Error`] says. Errors of single records stay in the reply as `Value::ServerError`.
    pub async fn send(&self, request: &Request) -> Result<Value, Error> {
        self.exchange(request, &mut self.inner.link.attempts()).await.map(|(value, _)| value)
    }

    /// The same, and the connection that was answered on.
    async fn exchange(&self, request: &Request, attempts: &mut Attempts<'_>) -> Result<(Value, Connection), Error> {
        request.function.check(request.count)?;
        let mut loads = 0;
        loop {
            let connection = attempts.connection().await?;
            let answer = match self.check(&connection).await {
                Ok(form) => {
                    let answer = match form {
                        form if request.form == form => attempts.exchange(&connection, &request.cmd).await,
                        form => attempts.exchange(&connection, &self.rebuilt(request, form)?).await,
                    };
                    match Missing::read(form, &answer) {
                        Some(missing) if loads < 3 => {
                            loads += 1;
                            match self.provide(&connection, request, missing, attempts).await {
                                Ok(None) => continue,
                                Ok(Some(answer)) => Ok(answer),
                                Err(Unfit::Answer(answer)) => answer,
                                Err(Unfit::Refused(error)) => return Err(error),
                            }
                        }
                        _ => answer,
                    }
                }
                Err(Unfit::Answer(answer)) => answer,
                Err(Unfit::Refused(error)) => return Err(error),
            };
            if !attempts.again(&connection, &answer).await {
                if let Some(error) = self.lacking(&connection, request.function, &answer).await {
                    return Err(error);
                }
                return Ok((self.conclude(request, answer)?, connection));
            }
        }
    }

    /// A reply that is lost is asked for again where the call may be repeated.
    async fn send_until_answered(
        &self,
        request: &Request,
        repeat: bool,
        attempts: &mut Attempts<'_>,
    ) -> Result<(Value, Connection), Error> {
        loop {
            match self.exchange(request, attempts).await {
                Err(error) if repeat && error.maybe_sent() && attempts.pause().await => {}
                answer => return answer.map_err(|error| error.with_maybe_sent(attempts.maybe_sent)),
            }
        }
    }

    /// The command up to the arguments.
    fn begin(&self, function: &'static Function, form: Form, args: usize, bytes: usize) -> Result<Cmd, Error> {
        let mut cmd = Cmd::with_capacity(args + 4, bytes + 64);
        match form {
            Form::Reads if function.query => cmd.arg(b"FCALL_RO").arg(&function.server_name),
            Form::Functions | Form::Reads => cmd.arg(b"FCALL").arg(&function.server_name),
            Form::Scripts => cmd.arg(b"EVALSHA").arg(&self.script(function)?.sha1),
            Form::Sources => cmd.arg(b"EVAL").arg(&self.script(function)?.source),
        };
        cmd.arg(b"1").arg(&self.inner.base);
        Ok(cmd)
    }

    /// The request for a server of the other kind than it was built for.
    fn rebuilt(&self, request: &Request, form: Form) -> Result<Cmd, Error> {
        let mut cmd = self.begin(request.function, form, request.count, request.size)?;
        for arg in request.cmd.args_iter().skip(4) {
            if let redis::Arg::Simple(bytes) = arg {
                cmd.arg(bytes);
            }
        }
        Ok(cmd)
    }

    fn script(&self, function: &'static Function) -> Result<Arc<Script>, Error> {
        if let Some(script) = lock(&self.inner.common.scripts).get(function.name.as_str()) {
            return Ok(script.clone());
        }
        let script = Arc::new(self.inner.common.library.script(&function.name)?);
        lock(&self.inner.common.scripts).insert(&function.name, script.clone());
        Ok(script)
    }

    fn conclude(&self, request: &Request, answer: Result<Value, Error>) -> Result<Value, Error> {
        let value = self.read(request, answer)?;
        match value {
            Value::BulkString(packed) if request.is_packed => unpack(&packed)
                .ok_or_else(|| Error::Script(format!("{}: a reply that cannot be unpacked", request.function.name))),
            value => Ok(value),
        }
    }

    fn read(&self, request: &Request, answer: Result<Value, Error>) -> Result<Value, Error> {
        refuse_error(answer?).map_err(|error| {
            let error = match error {
                Error::Forbidden { .. } => error.map_message(|message| {
                    let (function, base) = (&request.function.name, &self.inner.base);
                    format!("`{function}` on {base}*, as user {:?}: {message}", self.inner.link.connector().user())
                }),
                error => error,
            };
            error.map_message(|message| match lock(&self.inner.common.scripts).get(request.function.name.as_str()) {
                Some(script) if message.contains("user_script:") => script.locate(message),
                _ => self.inner.common.library.locate(message),
            })
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
