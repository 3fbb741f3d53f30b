//! The one error enum, and what servers' error replies mean. Must not know: what Python makes of it.

use std::fmt;

use redis::ServerError;

const FORBIDDEN: &str =
    "the server's user may not do this; `ACL SETUSER` grants commands and keys, `ardiq migrate --acl` shows which";
/// The same inside a function, since Redis 7.2 and before.
const IN_FUNCTION: [&str; 2] = ["ACL failure in script", "The user executing the script can't"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The server is unreachable, refuses, or dropped the connection.
    Broker {
        message: String,
        /// The request may have reached the server, so it may have been carried out.
        maybe_sent: bool,
    },
    /// The server does not know this user, or lets it not do this: no matter of time, but of its rights.
    Forbidden {
        message: String,
        /// A function was in the middle of it: what it wrote before stays.
        maybe_sent: bool,
    },
    /// The server is at `maxmemory` and refuses what would add data. Nothing was written.
    OutOfMemory(String),
    /// An `ARDIQ_<code>` refusal by a function. Nothing was written.
    Server { code: String, message: String },
    /// The library is missing and may not be loaded, or is another than this build's, or the
    /// server is too old for it.
    Library(String),
    /// A call that does not fit the protocol or an option that makes no sense; nothing was sent.
    Argument(String),
    /// The server answered with an error nobody foresaw: a mistake in the Lua, or in a raw command.
    Script(String),
}

impl Error {
    /// Nobody waits for the answer on this side any more.
    pub fn closed(maybe_sent: bool) -> Self {
        Self::broker("the connection was closed by close()", maybe_sent)
    }

    /// A broken connection or no connection; in one line, whatever those below us say of it.
    pub fn broker(message: impl AsRef<str>, maybe_sent: bool) -> Self {
        let message = message.as_ref().split('\n').map(str::trim).filter(|line| !line.is_empty());
        Self::Broker { message: message.collect::<Vec<_>>().join(", "), maybe_sent }
    }

    /// Whether the request may have been carried out although it failed.
    pub fn maybe_sent(&self) -> bool {
        matches!(self, Self::Broker { maybe_sent: true, .. })
    }

    /// Whether nothing of the request was carried out.
    pub fn is_refusal(&self) -> bool {
        let half_done = matches!(self, Self::Script(_) | Self::Forbidden { maybe_sent: true, .. });
        !half_done && !self.maybe_sent()
    }

    /// The same for a call of which that is known.
    #[must_use]
    pub fn with_maybe_sent(self, maybe_sent: bool) -> Self {
        match self {
            Self::Broker { message, .. } => Self::Broker { message, maybe_sent },
            // It refuses a repeat, and says nothing of what was sent before.
            Self::OutOfMemory(message) if maybe_sent => Self::Broker { message, maybe_sent },
            Self::Forbidden { message, .. } if maybe_sent => Self::Forbidden { message, maybe_sent },
            other => other,
        }
    }

    /// Whether it is the refusal `ARDIQ_<code>`.
    pub fn is(&self, refusal: &str) -> bool {
        matches!(self, Self::Server { code, .. } if code == refusal)
    }

    /// The same error with its text changed.
    #[must_use]
    pub fn map_message(self, change: impl FnOnce(&str) -> String) -> Self {
        match self {
            Self::Broker { message, maybe_sent } => Self::Broker { message: change(&message), maybe_sent },
            Self::Forbidden { message, maybe_sent } => Self::Forbidden { message: change(&message), maybe_sent },
            Self::OutOfMemory(message) => Self::OutOfMemory(change(&message)),
            Self::Server { code, message } => Self::Server { code, message: change(&message) },
            Self::Library(message) => Self::Library(change(&message)),
            Self::Argument(message) => Self::Argument(change(&message)),
            Self::Script(message) => Self::Script(change(&message)),
        }
    }

    fn from_reply(code: &str, detail: &str) -> Self {
        // A refusal by the server itself: nothing was carried out.
        let refused = |what: String| Self::broker(what, false);
        let forbidden = |message: String| Self::Forbidden { message, maybe_sent: false };
        match code {
            "OOM" => Self::OutOfMemory(format!(
                "the server is at its maxmemory and accepts no more work; free memory or raise the limit ({detail})"
            )),
            "WRONGTYPE" => Self::Server {
                code: "WRONG_TYPE".to_owned(),
                message: format!("a key does not hold what Ardiq keeps there: something else wrote it ({detail})"),
            },
            "NOAUTH" => forbidden(format!("the server requires a password; put it in the URL ({detail})")),
            "WRONGPASS" => forbidden(format!("the server rejects the user or password in the URL ({detail})")),
            "NOPERM" => forbidden(format!("{FORBIDDEN} ({detail})")),
            "READONLY" => refused(format!("the server is a read-only replica; connect to the primary ({detail})")),
            "LOADING" => refused(format!("the server is still loading its data; wait until it is up ({detail})")),
            "BUSY" => refused(format!(
                "the server is busy with a script that does not end; see FUNCTION KILL, SCRIPT KILL ({detail})"
            )),
            "MISCONF" => refused(format!(
                "the server refuses writes because it cannot save them; see its log, its disk ({detail})"
            )),
            "NOREPLICAS" => refused(format!(
                "the server refuses writes because too few replicas are connected; see min-replicas-to-write ({detail})"
            )),
            "MOVED" => refused(format!("another node of the cluster holds this queue's slot now ({code} {detail})")),
            "ASK" => refused(format!(
                "the cluster is moving this queue's slot to another node and has not finished ({code} {detail})"
            )),
            "UNBLOCKED" => refused(format!("the server is not the primary any more ({code} {detail})")),
            "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "CROSSSLOT" => {
                refused(format!("the server cannot serve this now ({code} {detail})"))
            }
            _ => match code.strip_prefix("ARDIQ_") {
                Some(code) => Self::Server { code: code.to_owned(), message: detail.to_owned() },
                None => match raised_in_script(detail) {
                    Some((code, detail)) => Self::from_reply(code, detail),
                    None if IN_FUNCTION.iter().any(|said| detail.contains(said)) => {
                        Self::Forbidden { message: format!("{FORBIDDEN} ({detail})"), maybe_sent: true }
                    }
                    None => Self::Script(format!("{code} {detail}").trim_end().to_owned()),
                },
            },
        }
    }
}

/// The code of an error reply, also of one that a server before 7.0 wrapped.
pub fn code(reply: &ServerError) -> &str {
    reply.details().and_then(raised_in_script).map_or_else(|| reply.code(), |(code, _)| code)
}

/// Whether a reply refuses a command itself: there is none of this name, or not for this user. In small letters; of one with
/// subcommands the first word will do.
pub fn lacks(reply: &ServerError, command: &str) -> bool {
    let said = reply.details().unwrap_or_default().to_ascii_lowercase();
    match reply.code() {
        // `unknown command 'HELLO', with args…`, ``unsupported command `hello` ``; of a right to keys it is not.
        "ERR" => said.split("with args").next().is_some_and(|said| said.contains("command") && names(said, command)),
        "NOPERM" => said.contains("command") && names(&said, command),
        _ => false,
    }
}

/// Whether one of the words, which may have more to them as in `'function|list'`, is this one.
fn names(said: &str, word: &str) -> bool {
    said.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|each| each == word)
}

/// Servers before 7.0 wrap what a command inside a script answered:
/// `Error running script (call to f_…): @user_script:3: @user_script: 3: -OOM command not allowed …`.
fn raised_in_script(detail: &str) -> Option<(&str, &str)> {
    if !detail.starts_with("Error running script") {
        return None;
    }
    let (_, rest) = detail.rsplit_once("user_script:")?;
    let (_, reply) = rest.split_once(": ")?;
    let (code, text) = reply.trim_start_matches('-').split_once(' ')?;
    let is_code = code != "ERR" && code.len() > 2 && code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    is_code.then_some((code, text))
}

/// An error reply, alone or inside a batch.
impl From<&ServerError> for Error {
    fn from(reply: &ServerError) -> Self {
        Self::from_reply(reply.code(), reply.details().unwrap_or_default())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker { message, .. }
            | Self::Forbidden { message, .. }
            | Self::OutOfMemory(message)
            | Self::Server { message, .. }
            | Self::Library(message)
            | Self::Argument(message)
            | Self::Script(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_carry_their_code() {
        let error = Error::from_reply("ARDIQ_LEASE_LOST", "worker w is not a member");
        assert!(error.is("LEASE_LOST"));
        assert_eq!(error.to_string(), "worker w is not a member");
        assert!(Error::from_reply("WRONGTYPE", "Operation against a key").is("WRONG_TYPE"));
    }

    #[test]
    fn memory_and_access_are_told_apart() {
        assert!(matches!(Error::from_reply("OOM", "command not allowed"), Error::OutOfMemory(_)));
        for code in ["NOAUTH", "WRONGPASS", "NOPERM"] {
            let error = Error::from_reply(code, "as the server says");
            assert!(matches!(error, Error::Forbidden { maybe_sent: false, .. }), "{code}");
            assert!(error.to_string().contains("as the server says"), "{error}");
        }
        for code in ["READONLY", "LOADING", "MISCONF", "MOVED", "BUSY", "UNBLOCKED"] {
            let error = Error::from_reply(code, "as the server says");
            assert!(matches!(error, Error::Broker { maybe_sent: false, .. }), "{code}");
            assert!(error.to_string().contains("as the server says"), "{error}");
        }
    }

    #[test]
    fn a_right_that_is_missing_inside_a_function_has_the_remedy() {
        for detail in [
            "ACL failure in script: User p has no permissions to run 'hsetnx'",
            "The user executing the script can't access at least one of the keys mentioned in the command arguments",
        ] {
            let error = Error::from_reply("ERR", detail);
            assert!(matches!(error, Error::Forbidden { maybe_sent: true, .. }), "{error}");
            assert!(error.to_string().contains("ACL SETUSER"), "{error}");
        }
    }

    #[test]
    fn what_old_servers_wrap_is_unwrapped() {
        let oom = "Error running script (call to f_a8e0): @user_script:1: @user_script: 1: -OOM command not \
                   allowed when used memory > 'maxmemory'.";
        assert!(matches!(Error::from_reply("ERR", oom), Error::OutOfMemory(_)));
        let wrong = "Error running script (call to f_88eb): @user_script:1: WRONGTYPE Operation against a key";
        assert!(Error::from_reply("ERR", wrong).is("WRONG_TYPE"));
        let bug = "Error running script (call to f_3d44): @user_script:1: user_script:1: attempt to index a nil value";
        assert_eq!(Error::from_reply("ERR", bug), Error::Script(format!("ERR {bug}")));
    }

    #[test]
    fn a_command_that_a_server_lacks_is_told_from_one_that_failed() {
        let lacks = |code: &str, said: &str, command: &str| {
            let line = format!("-{code} {said}\r\n");
            let Ok(redis::Value::ServerError(reply)) = redis::parse_redis_value(line.as_bytes()) else {
                panic!("{line}")
            };
            super::lacks(&reply, command)
        };
        assert!(lacks("ERR", "unknown command 'FUNCTION', with args beginning with: 'LIST' ", "function"));
        assert!(lacks("ERR", "unknown command `HELLO`, with args beginning with: ", "hello"));
        assert!(lacks("ERR", "Unknown subcommand or wrong number of arguments for 'X'. Try SCRIPT HELP.", "script"));
        assert!(lacks("NOPERM", "User me has no permissions to run the 'function|list' command", "function"));
        assert!(lacks(
            "NOPERM",
            "this user has no permissions to run the 'evalsha' command or its subcommand",
            "evalsha"
        ));
        assert!(!lacks("NOPERM", "User fcall has no permissions to access one of the keys used as arguments", "fcall"));
        assert!(!lacks("ERR", "unknown command 'NONE', with args beginning with: 'fcall' ", "fcall"));
        assert!(!lacks("ERR", "Function not found", "fcall"));
    }

    #[test]
    fn the_unforeseen_is_shown_whole() {
        assert_eq!(Error::from_reply("ERR", "unknown command").to_string(), "ERR unknown command");
    }
}
