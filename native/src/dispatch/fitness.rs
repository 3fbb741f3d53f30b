//! Whether the server at the other end is fit: has this build's library, and data that it understands. Loads what is
//! missing.

use std::sync::atomic::Ordering;

use redis::{ServerError, Value};

use super::{Dispatcher, Form, lock};
use crate::connection::Connection;
use crate::connection::cluster::Moved;
use crate::error::Error;
use crate::protocol::Function;
use crate::schema::{self, Record};

/// Why a server could not be checked: what it or the line answered, or what was found.
pub(super) enum Unfit {
    Answer(Result<Value, Error>),
    Refused(Error),
}

impl Dispatcher {
    /// How this server is called, having made sure once a connection that it is fit.
    pub(super) async fn check(&self, connection: &Connection) -> Result<Form, Unfit> {
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
    pub(super) async fn load(&self, connection: &Connection, function: &'static Function) -> Result<(), Unfit> {
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
        let reply = match settled(connection.exchange(&schema::load_command(&library.payload(), false)).await) {
            Ok(_) => {
                // Only for people to read: what the server holds counts.
                if let Ok(home) = self.inner.link.holding(schema::key()).await {
                    let _ = schema::record(&home, protocol.version, library.sha1()).await;
                }
                return Ok(());
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
                    _ => Ok(()),
                }
            }
            Error::Script(message) => Err(Unfit::Refused(schema::not_taken(&message))),
            error if reply.code() == "NOPERM" => Err(Unfit::Refused(Error::Library(format!(
                "the server lacks the library {} and it cannot be loaded from here: run `ardiq migrate` ({error})",
                protocol.library
            )))),
            // It takes none now: it is no primary any more, or cannot save.
            _ => Err(Unfit::Answer(Ok(Value::ServerError(reply)))),
        }
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

pub(super) fn is_missing(reply: &ServerError) -> bool {
    reply.code() == "NOSCRIPT" || reply.details().is_some_and(|text| text.starts_with("Function not found"))
}
