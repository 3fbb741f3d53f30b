//! Where a reply ends that comes over the wire (RESP2) in pieces. Must not know: what it answers.

use std::io::{Error, ErrorKind, Result};

use redis::{RedisResult, Value, parse_redis_value};

/// A reply as far as it has come.
pub struct Reply {
    bytes: Vec<u8>,
    /// Where to read on.
    at: usize,
    /// Replies that are to come from there: an array is followed by its items.
    lacking: usize,
}

impl Default for Reply {
    fn default() -> Self {
        Self { bytes: Vec::new(), at: 0, lacking: 1 }
    }
}

impl Reply {
    /// What has come, to be appended to.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Its length; None while it is not all there. However many the pieces are, each byte is read once.
    ///
    /// # Errors
    /// It is none.
    pub fn length(&mut self) -> Result<Option<usize>> {
        while self.lacking > 0 {
            let rest = &self.bytes[self.at..];
            let Some(line) = rest.windows(2).position(|end| end == b"\r\n") else { return Ok(None) };
            let refused = || Error::new(ErrorKind::InvalidData, "what came is no reply");
            let number = || {
                let number = std::str::from_utf8(&rest[1..line]).ok().and_then(|digits| digits.parse::<i64>().ok());
                number.ok_or_else(refused).map(usize::try_from)
            };
            let (text, items) = match rest[0] {
                b'+' | b'-' | b':' => (0, 0),
                b'$' => (number()?.map_or(0, |length| length.saturating_add(2)), 0),
                b'*' => (0, number()?.unwrap_or(0)),
                _ => return Err(refused()),
            };
            if rest.len() - (line + 2) < text {
                return Ok(None);
            }
            self.at += line + 2 + text;
            self.lacking = (self.lacking - 1).saturating_add(items);
        }
        Ok(Some(self.at))
    }

    /// It, where it is all there, and what came behind it.
    ///
    /// # Errors
    /// It is none.
    pub fn split(&self) -> RedisResult<(Value, &[u8])> {
        let (reply, more) = self.bytes.split_at(self.at);
        Ok((parse_redis_value(reply)?, more))
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    /// The length of the reply that comes in such pieces, asked for after each.
    fn length_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<usize>> {
        let mut reply = Reply::default();
        let mut length = None;
        for piece in pieces {
            assert_eq!(length, None, "{:?} was not all", reply.bytes);
            reply.bytes().extend_from_slice(piece);
            length = reply.length()?;
        }
        Ok(length)
    }

    #[test]
    fn it_ends_where_redis_rs_says_in_whatever_pieces_it_comes() {
        let mut drawn = 0_u64;
        let seed = RandomState::new();
        let mut below = |most: u64| {
            drawn += 1;
            seed.hash_one(drawn) % most
        };
        for _ in 0..2000 {
            let bytes = draw(&mut below, 0);
            let expected = parse_redis_value(&bytes).unwrap();
            let mut reply = Reply::default();
            reply.bytes().extend_from_slice(&[&bytes[..], b"+more\r\n"].concat());
            assert_eq!(reply.length().unwrap(), Some(bytes.len()), "{bytes:?}");
            assert_eq!(reply.split().unwrap(), (expected, &b"+more\r\n"[..]));
            assert_eq!(length_of(bytes.chunks(1)).unwrap(), Some(bytes.len()), "{bytes:?}");
            let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(1 + below(rest.len() as u64) as usize);
                pieces.push(piece);
                rest = more;
            }
            assert_eq!(length_of(pieces).unwrap(), Some(bytes.len()), "{bytes:?}");
        }
    }

    /// Any reply.
    fn draw(below: &mut impl FnMut(u64) -> u64, depth: u64) -> Vec<u8> {
        let few = below(4);
        match below(if depth < 6 { 10 } else { 6 }) {
            0 => b"+OK\r\n".to_vec(),
            1 => b"-NOPERM what \xc3\xa9 it is\r\n".to_vec(),
            2 => format!(":-{few}7\r\n").into_bytes(),
            3 => b"$-1\r\n".to_vec(),
            4 => b"*-1\r\n".to_vec(),
            5 => {
                let text: Vec<u8> = (0..few * 3).map(|_| b"\r\n$*:-1\0"[below(8) as usize]).collect();
                [format!("${}\r\n", text.len()).as_bytes(), &text, b"\r\n"].concat()
            }
            _ => (0..few).fold(format!("*{few}\r\n").into_bytes(), |array, _| [array, draw(below, depth + 1)].concat()),
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for nonsense in [&b"HTTP/1.1 400\r\n"[..], b"$x\r\n", b"*1\r\n?\x00\r\n", b"\r\n", b"*\r\n"] {
            assert!(length_of([nonsense]).is_err(), "{nonsense:?}");
        }
        let mut reply = Reply::default();
        reply.bytes().extend_from_slice(b"$1\r\nabc\r\n");
        assert!(reply.length().is_err() || reply.split().is_err());
        assert_eq!(length_of([&b"*9223372036854775807\r\n$9223372036854775807\r\n"[..]]).unwrap(), None);
    }
}
