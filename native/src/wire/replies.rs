//! Replies as they come over the wire (RESP2), read by hand. Must not know: what they answer.

use redis::{RedisResult, Value, parse_redis_value};

/// What the library replies is flat.
const DEEPEST: usize = 32;

/// The first reply, and its length; None while it is not all there.
///
/// # Errors
/// It is none.
pub fn read(bytes: &[u8]) -> RedisResult<Option<(Value, usize)>> {
    let mut reader = Reader { bytes, at: 0 };
    Ok(reader.reply(0)?.map(|value| (value, reader.at)))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn reply(&mut self, depth: usize) -> RedisResult<Option<Value>> {
        let Some(line) = self.line() else { return Ok(None) };
        let length = |line: &[u8]| std::str::from_utf8(&line[1..line.len() - 2]).ok()?.parse::<i64>().ok();
        match (line[0], length(line)) {
            (b':', Some(number)) => Ok(Some(Value::Int(number))),
            (b'$' | b'*', Some(-1)) => Ok(Some(Value::Nil)),
            (b'$', Some(length @ 0..)) => {
                let Some(text) = self.take(length as usize + 2) else { return Ok(None) };
                Ok(Some(Value::BulkString(text[..length as usize].to_vec())))
            }
            (b'*', Some(length @ 0..)) if depth < DEEPEST => {
                // Each item has three bytes at least.
                let mut items = Vec::with_capacity((length as usize).min((self.bytes.len() - self.at) / 3));
                for _ in 0..length {
                    let Some(item) = self.reply(depth + 1)? else { return Ok(None) };
                    items.push(item);
                }
                Ok(Some(Value::Array(items)))
            }
            // A line alone, or nothing that a server replies.
            _ => parse_redis_value(line).map(Some),
        }
    }

    /// With its end.
    fn line(&mut self) -> Option<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        self.take(end + 1).filter(|line| line.len() > 2)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes[self.at..].get(..length)?;
        self.at += length;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_redis_rs_reads_them_and_not_before_they_are_there() {
        let replies: [&[u8]; 8] = [
            b"*1\r\n$6\r\nqueued\r\n",
            b"*3\r\n:-7\r\n$-1\r\n*2\r\n$0\r\n\r\n$3\r\n\r\nx\r\n",
            b"*0\r\n",
            b"*-1\r\n",
            b"+OK\r\n",
            b"+PONG\r\n",
            b"-ERR what \xc3\xa9\r\n",
            b"*1\r\n-NOPERM no\r\n",
        ];
        for reply in replies {
            let expected = parse_redis_value(reply).unwrap();
            let more = [reply, b"+more\r\n"].concat();
            assert_eq!(read(&more).unwrap(), Some((expected, reply.len())), "{reply:?}");
            for length in 0..reply.len() {
                assert_eq!(read(&reply[..length]).unwrap(), None, "{reply:?} {length}");
            }
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for nonsense in [&b"HTTP/1.1 400\r\n"[..], b"$x\r\n", b"*1\r\n?\x00\r\n"] {
            assert!(read(nonsense).is_err(), "{nonsense:?}");
        }
        assert!(read(&b"*1\r\n".repeat(1000)).is_err());
    }
}
