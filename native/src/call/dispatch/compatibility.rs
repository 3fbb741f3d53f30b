//! Whether the server at the other end is fit: has this build's library, and data that it understands. Loads what is
//! missing; where functions cannot be had, calls are scripts.

use std::sync::atomic::Ordering;

use redis::{ServerError, Value};

use super::{Dispatcher, Form, Request, lock};
use crate::call::schema::{self, Record};
use crate::lua::protocol::{Function, Protocol};
use crate::wire::connection::cluster::Moved;
use crate::wire::connection::{Attempts, Connection};
use crate::wire::error::{Error, lacks};

/// Why a server could not be checked: what it or the line answered, or what was found.
#[derive(Clone)]
pub(super) enum Unfit {
    Answer(Result<Value, Error>),
    Refused(Error),
}

/// What a call showed that the server lacks.
pub(super) enum Missing {
    Library,
    Functions(ServerError),
    Script,
    Scripts(ServerError),
}

impl Missing {
    pub fn read(form: Form, answer: &Result<Value, Error>) -> Option<Self> {
        let Ok(Value::ServerError(reply)) = answer else { return None };
        match form {
            Form::Functions | Form::Reads
                if reply.details().is_some_and(|text| text.starts_with("Function not found")) =>
            {
                Some(Self::Library)
            }
            Form::Functions if lacks(reply, "fcall") => Some(Self::Functions(reply.clone())),
            Form::Scripts if reply.code() == "NOSCRIPT" => Some(Self::Script),
            Form::Scripts if lacks(reply, "evalsha") => Some(Self::Scripts(reply.clone())),
            _ => None,
        }
    }
}

impl Dispatcher {
    /// How this server is called, having made sure once a connection that it is fit.
    pub(super) async fn check(&self, connection: &Connection) -> Result<Form, Unfit> {
        if let Some(form) = checked(connection) {
            return Ok(form);
        }
        let one_at_a_time = connection.noted().finding.clone().lock_owned().await;
        if let Some(form) = checked(connection) {
            return Ok(form);
        }
        // Goes on when the time of this call is over, as connecting does. It hands back its turn, so that the call which
        // began it is sent before those that waited for it: they keep their order.
        let (dispatcher, connection) = (self.clone(), connection.clone());
        let check = tokio::spawn(async move { (dispatcher.find_form(&connection).await, one_at_a_time) });
        match check.await {
            Ok((found, _one_at_a_time)) => found,
            Err(_) => Err(Unfit::Refused(Error::broker("the I/O thread failed while it checked the server", false))),
        }
    }

    async fn find_form(&self, connection: &Connection) -> Result<Form, Unfit> {
        connection.server().require().map_err(Unfit::Refused)?;
        let record = self.record(connection).await?;
        let form = self.check_library(connection, &record).await?;
        self.note(connection, form);
        Ok(form)
    }

    /// The form of calls to the last server.
    pub(super) fn form(&self) -> Form {
        form_in(self.inner.common.form.load(Ordering::Relaxed)).unwrap_or(Form::Functions)
    }

    fn note(&self, connection: &Connection, form: Form) {
        connection.noted().form.store(form as u8, Ordering::Release);
        self.inner.common.form.store(form as u8, Ordering::Relaxed);
    }

    /// What is recorded under the prefix, which this build must understand.
    async fn record(&self, connection: &Connection) -> Result<Record, Unfit> {
        let record = match connection.exchange(&schema::read_command(&self.schema_key())).await {
            // Of no concern to who may not see it.
            Ok(Value::ServerError(reply)) if reply.code() == "NOPERM" => Record::default(),
            // It lies on another node of the cluster, which may be down: then this one's library has to do.
            Ok(Value::ServerError(reply)) if reply.code() == "MOVED" => self.record_elsewhere(&reply, connection).await,
            answer => Record::read(&settled(answer)?),
        };
        record.check(self.inner.common.library.protocol().version).map_err(Unfit::Refused)?;
        Ok(record)
    }

    async fn record_elsewhere(&self, reply: &ServerError, connection: &Connection) -> Record {
        let read = async {
            let place = Moved::read(reply)?.from(connection).ok()?;
            let node = self.inner.link.connector().only(place).connect().await.ok()?;
            Record::fetch(&node, &self.schema_key()).await.ok()
        };
        read.await.unwrap_or_default()
    }

    fn schema_key(&self) -> String {
        schema::key(Protocol::of_base(&self.inner.base).0)
    }

    async fn check_library(&self, connection: &Connection, record: &Record) -> Result<Form, Unfit> {
        let protocol = self.inner.common.library.protocol();
        let found = match connection.exchange(&schema::list_command(&protocol.library)).await {
            // Of one who may not look, the record is all there is to go by.
            Ok(Value::ServerError(reply)) if lacks(&reply, "function") && reply.code() == "NOPERM" => {
                record.of(protocol.version, "sha1").map(str::to_owned)
            }
            // Not asked by a real call: the error would repeat its arguments, which need not be text.
            Ok(Value::ServerError(reply)) if lacks(&reply, "function") => {
                match connection.exchange(redis::cmd("FCALL").arg(&protocol.library).arg(0)).await {
                    Ok(Value::ServerError(reply)) if lacks(&reply, "fcall") => {
                        return Ok(self.use_scripts(connection, Unfit::Answer(Ok(Value::ServerError(reply)))));
                    }
                    _ => None,
                }
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
            Some(sha1) if sha1 != self.inner.common.library.sha1() => Err(Unfit::Refused(self.different(&sha1))),
            _ => Ok(Form::Functions),
        }
    }

    fn different(&self, found: &str) -> Error {
        let name = &self.inner.common.library.protocol().library;
        Error::Library(format!(
            "the server's library {name} is not this build's (checksum {}…, not {}…): run `ardiq migrate`, or \
             install the Ardiq that loaded it",
            &found[..8.min(found.len())],
            &self.inner.common.library.sha1()[..8]
        ))
    }

    /// Sees to it that the call can be sent again, or that it is answered. A server that lost its library (fresh, flushed,
    /// failed over) must not stop a fleet: whoever notices first loads it.
    pub(super) async fn provide(
        &self,
        connection: &Connection,
        request: &Request,
        missing: Missing,
        attempts: &mut Attempts<'_>,
    ) -> Result<Option<Value>, Unfit> {
        match missing {
            Missing::Library => {
                let form = self.load_library(connection).await?;
                self.note(connection, form);
                Ok(None)
            }
            Missing::Functions(reply) => {
                self.use_scripts(connection, Unfit::Answer(Ok(Value::ServerError(reply))));
                Ok(None)
            }
            Missing::Script => self.load_script(connection, request, attempts).await,
            Missing::Scripts(_) if self.may_read(connection).await => {
                self.note(connection, Form::Reads);
                Ok(None)
            }
            Missing::Scripts(reply) => Err(self.nothing_left(connection, reply)),
        }
    }

    /// Whether the user has neither functions nor scripts, but the queries among the functions.
    async fn may_read(&self, connection: &Connection) -> bool {
        match &*lock(&self.inner.common.no_functions) {
            Some(Unfit::Answer(Ok(Value::ServerError(reply)))) if reply.code() == "NOPERM" => {}
            _ => return false,
        }
        let library = &self.inner.common.library.protocol().library;
        match connection.exchange(redis::cmd("FCALL_RO").arg(library).arg(0)).await {
            Ok(Value::ServerError(reply)) => !lacks(&reply, "fcall_ro"),
            answer => answer.is_ok(),
        }
    }

    /// The error of a function that called a command which the server does not have: it says so without its name.
    pub(super) async fn lacking(
        &self,
        connection: &Connection,
        function: &Function,
        answer: &Result<Value, Error>,
    ) -> Option<Error> {
        let Ok(Value::ServerError(reply)) = answer else { return None };
        if !reply.details().is_some_and(|said| said.contains("nknown") && said.contains("command called from")) {
            return None;
        }
        let commands = self.inner.common.library.commands(&function.name).ok()?;
        let known = connection.query(redis::cmd("COMMAND").arg("INFO").arg(&commands)).await.ok()?;
        let Value::Array(known) = known else { return None };
        let lacks: Vec<&str> = commands
            .iter()
            .zip(known)
            .filter(|(_, known)| *known == Value::Nil)
            .map(|(name, _)| name.as_str())
            .collect();
        let (lacks, called) = (lacks.join(", "), &function.name);
        (!lacks.is_empty()).then(|| {
            Error::Library(format!(
                "the server lacks {lacks}, which `{called}` calls: it was renamed, or your hosting disables it"
            ))
        })
    }

    fn use_scripts(&self, connection: &Connection, why: Unfit) -> Form {
        *lock(&self.inner.common.no_functions) = Some(why);
        self.note(connection, Form::Scripts);
        Form::Scripts
    }

    /// Neither functions nor scripts: a right that is missing, or the server's lack. Whichever comes back is found by the
    /// next call.
    fn nothing_left(&self, connection: &Connection, scripts: ServerError) -> Unfit {
        connection.noted().form.store(0, Ordering::Release);
        match lock(&self.inner.common.no_functions).take() {
            Some(Unfit::Answer(Ok(Value::ServerError(reply)))) if reply.code() == "ERR" && scripts.code() == "ERR" => {
                Unfit::Refused(Error::Library(
                    "the server has neither the command FCALL nor EVALSHA and SCRIPT LOAD: Ardiq's Lua needs one of them"
                        .to_owned(),
                ))
            }
            Some(Unfit::Answer(Ok(Value::ServerError(reply)))) if reply.code() == "ERR" => {
                Unfit::Answer(Ok(Value::ServerError(scripts)))
            }
            why => why.unwrap_or(Unfit::Answer(Ok(Value::ServerError(scripts)))),
        }
    }

    async fn load_script(
        &self,
        connection: &Connection,
        request: &Request,
        attempts: &mut Attempts<'_>,
    ) -> Result<Option<Value>, Unfit> {
        let script = self.script(request.function).map_err(Unfit::Refused)?;
        match connection.exchange(redis::cmd("SCRIPT").arg("LOAD").arg(&script.source)).await {
            Ok(Value::ServerError(reply)) if lacks(&reply, "script") => {
                let sources = self.rebuilt(request, Form::Sources).map_err(Unfit::Refused)?;
                match attempts.exchange(connection, &sources).await {
                    Ok(Value::ServerError(reply)) if lacks(&reply, "eval") => Err(self.nothing_left(connection, reply)),
                    answer => answer.map(Some).map_err(|error| Unfit::Answer(Err(error))),
                }
            }
            answer => settled(answer).map(|_| None),
        }
    }

    async fn load_library(&self, connection: &Connection) -> Result<Form, Unfit> {
        let library = self.inner.common.library;
        let protocol = library.protocol();
        // Since it was there, somebody may have pruned this version; the same once it is loaded again, lest it stay.
        self.record(connection).await?;
        let reply = match settled(connection.exchange(&schema::load_command(&library.payload(), false)).await) {
            Ok(_) => {
                if let Err(unfit) = self.record(connection).await {
                    let _ = connection.exchange(redis::cmd("FUNCTION").arg("DELETE").arg(&protocol.library)).await;
                    return Err(unfit);
                }
                // Only for people to read: what the server holds counts.
                let key = self.schema_key();
                if let Ok(home) = self.inner.link.holding(&key).await {
                    let _ = schema::record(&home, &key, protocol.version, library.sha1()).await;
                }
                return Ok(Form::Functions);
            }
            Err(Unfit::Answer(Ok(Value::ServerError(reply)))) => reply,
            Err(unfit) => return Err(unfit),
        };
        match Error::from(&reply) {
            Error::Script(message) if message.contains("already exists") => {
                // Another process was faster.
                let answer = connection.exchange(&schema::list_command(&protocol.library)).await;
                match schema::read_list(&settled(answer)?).first() {
                    Some(found) if found.sha1 != library.sha1() => Err(Unfit::Refused(self.different(&found.sha1))),
                    _ => Ok(Form::Functions),
                }
            }
            // At `maxmemory` it takes no library, but scripts: so it can be emptied.
            error if lacks(&reply, "function") || matches!(error, Error::OutOfMemory(_)) => {
                let why = format!(
                    "the server lacks the library {} and it cannot be loaded from here: run `ardiq migrate` ({} {})",
                    protocol.library,
                    reply.code(),
                    reply.details().unwrap_or_default()
                );
                Ok(self.use_scripts(connection, Unfit::Refused(Error::Library(why))))
            }
            Error::Script(message) => Err(Unfit::Refused(schema::not_taken(&message))),
            // It takes none now: it is no primary any more, or cannot save.
            _ => Err(Unfit::Answer(Ok(Value::ServerError(reply)))),
        }
    }
}

pub(super) fn checked(connection: &Connection) -> Option<Form> {
    form_in(connection.noted().form.load(Ordering::Acquire))
}

fn form_in(noted: u8) -> Option<Form> {
    [Form::Functions, Form::Scripts, Form::Reads].into_iter().find(|form| *form as u8 == noted)
}

/// An answer to a question that precedes the caller's request, which has not been sent yet.
fn settled(answer: Result<Value, Error>) -> Result<Value, Unfit> {
    match answer {
        Ok(Value::ServerError(reply)) => Err(Unfit::Answer(Ok(Value::ServerError(reply)))),
        Ok(value) => Ok(value),
        Err(error) => Err(Unfit::Answer(Err(Error::broker(error.to_string(), false)))),
    }
}
