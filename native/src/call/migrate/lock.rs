//! One `migrate` at a time: a key that ends by itself, and is renewed for as long as the work goes on.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use redis::Value;

use crate::call::schema::{self, PACKAGE};
use crate::wire::connection::Connection;
use crate::wire::error::{Error, lacks};
use crate::wire::values;

/// Atomic, so that what became another's meanwhile stays as it is.
const IF_MINE: &str =
    "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call(ARGV[2], KEYS[1], unpack(ARGV, 3))";

struct Lock<'a> {
    home: &'a Connection,
    key: &'a str,
    mine: String,
    ttl: Duration,
}

/// Runs `work` while nobody else holds `key`. One that dies holds the others up for no longer than `ttl`.
///
/// # Errors
/// [`Error::Library`] when another is at work, or took over because this one could not renew in time; what `work` says.
pub async fn locked<T>(
    home: &Connection,
    key: &str,
    ttl: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let lock = Lock::take(home, key, ttl).await?;
    let result = tokio::select! {
        result = work => result,
        lost = lock.keep() => Err(lost),
    };
    lock.release().await;
    result
}

impl<'a> Lock<'a> {
    async fn take(home: &'a Connection, key: &'a str, ttl: Duration) -> Result<Self, Error> {
        let since = schema::now_ms(home).await?;
        let unlike_any = RandomState::new().hash_one(since);
        let mine = format!("Ardiq {PACKAGE}, process {}, since {since} ms, {unlike_any:x}", std::process::id());
        let mut set = redis::cmd("SET");
        set.arg(key).arg(&mine).arg("NX").arg("PX").arg(ttl.as_millis() as u64);
        if home.query(&set).await? != Value::Nil {
            return Ok(Self { home, key, mine, ttl });
        }
        let holder = values::text(&home.query(redis::cmd("GET").arg(key)).await?).unwrap_or_default();
        Err(Error::Library(format!(
            "another `ardiq migrate` is running ({holder}); wait for it, or {} seconds if it has died",
            ttl.as_secs()
        )))
    }

    /// Renews it until it is another's.
    async fn keep(&self) -> Error {
        loop {
            tokio::time::sleep(self.ttl / 3).await;
            if let Ok(false) = self.if_mine("PEXPIRE", Some(self.ttl)).await {
                return Error::Library(
                    "this `ardiq migrate` was delayed for so long that another one may be running: run it again"
                        .to_owned(),
                );
            }
        }
    }

    async fn release(&self) {
        // Else it ends by itself.
        let _ = self.if_mine("DEL", None).await;
    }

    /// Whether it is still ours; then the command was carried out on it.
    async fn if_mine(&self, command: &str, ttl: Option<Duration>) -> Result<bool, Error> {
        let mut eval = redis::cmd("EVAL");
        eval.arg(IF_MINE).arg(1).arg(self.key).arg(&self.mine).arg(command);
        ttl.map(|ttl| eval.arg(ttl.as_millis() as u64));
        match self.home.exchange(&eval).await? {
            Value::ServerError(reply) if lacks(&reply, "eval") => {
                let holder = self.home.query(redis::cmd("GET").arg(self.key)).await?;
                let is_mine = values::text(&holder).as_deref() == Some(&self.mine);
                let mut plain = redis::cmd(command);
                plain.arg(self.key);
                ttl.map(|ttl| plain.arg(ttl.as_millis() as u64));
                if is_mine {
                    self.home.query(&plain).await?;
                }
                Ok(is_mine)
            }
            answer => Ok(crate::wire::connection::refuse_error(answer)? == Value::Int(1)),
        }
    }
}
