//! The wire format, RESP2: requests out, replies in. redis-rs' parser takes some 200 ns for each
//! element of a reply, which is more than all else that is done with a claimed task in Rust.

use redis::Value;

/// Appends one argument to a request.
pub fn push(request: &mut Vec<u8>, arg: &[u8]) {
    header(request, b'$', arg.len());
    request.extend_from_slice(arg);
    request.extend_from_slice(b"\r\n");
}

/// Begins a request of `count` arguments.
pub fn begin(request: &mut Vec<u8>, count: usize) {
    header(request, b'*', count);
}

fn header(request: &mut Vec<u8>, kind: u8, number: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    request.reserve(digits.len() - at + 3);
    request.push(kind);
    request.extend_from_slice(&digits[at..]);
    request.extend_from_slice(b"\r\n");
}

/// What arrives that is no RESP2.
#[derive(Debug, PartialEq, Eq)]
pub struct Garbled;

/// Deeper than any reply; a sender of more is not a server.
const DEEPEST: usize = 64;

/// Finds where replies end in bytes that arrive piece by piece, looking at none twice.
#[derive(Debug)]
pub struct Scanner {
    /// How far it has looked.
    at: usize,
    /// Values still missing until the reply is whole.
    missing: usize,
}

impl Default for Scanner {
    fn default() -> Self {
        Self { at: 0, missing: 1 }
    }
}

impl Scanner {
    /// The length of the reply that `bytes` begins with, once all of it is there. Called again with
    /// more bytes after the same ones, until it is; then begin with a new one.
    pub fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Garbled> {
        while self.missing > 0 {
            let Some(line) = Line::read(bytes, self.at)? else { return Ok(None) };
            let end = match line.kind {
                b'$' => match usize::try_from(line.number()?) {
                    Ok(length) => line.end + length + 2,
                    Err(_) => line.end,
                },
                b'*' => {
                    self.missing += usize::try_from(line.number()?).unwrap_or(0);
                    line.end
                }
                b'+' | b'-' | b':' => line.end,
                _ => return Err(Garbled),
            };
            if end > bytes.len() {
                if line.kind == b'*' {
                    return Err(Garbled);
                }
                return Ok(None);
            }
            self.at = end;
            self.missing -= 1;
        }
        Ok(Some(self.at))
    }
}

/// One `$11`, `*3`, `:5`, `+OK` or `-ERR …`.
struct Line<'a> {
    kind: u8,
    text: &'a [u8],
    /// Where the next one begins.
    end: usize,
}

impl<'a> Line<'a> {
    fn read(bytes: &'a [u8], at: usize) -> Result<Option<Self>, Garbled> {
        let Some((kind, rest)) = bytes.get(at..).and_then(<[u8]>::split_first) else { return Ok(None) };
        let Some(length) = rest.iter().position(|byte| *byte == b'\r') else { return Ok(None) };
        match rest.get(length + 1) {
            None => Ok(None),
            Some(b'\n') => Ok(Some(Self { kind: *kind, text: &rest[..length], end: at + length + 3 })),
            Some(_) => Err(Garbled),
        }
    }

    fn number(&self) -> Result<i64, Garbled> {
        let (negative, digits) = match self.text.split_first() {
            Some((b'-', digits)) => (true, digits),
            _ => (false, self.text),
        };
        if digits.is_empty() || digits.len() > 19 {
            return Err(Garbled);
        }
        let mut number: i64 = 0;
        for digit in digits {
            let digit = digit.wrapping_sub(b'0');
            if digit > 9 {
                return Err(Garbled);
            }
            number = number.checked_mul(10).and_then(|n| n.checked_sub(i64::from(digit))).ok_or(Garbled)?;
        }
        if negative { Ok(number) } else { number.checked_neg().ok_or(Garbled) }
    }
}

/// The value of one whole reply, as a [`Scanner`] delimits it.
pub fn parse(reply: &[u8]) -> Result<Value, Garbled> {
    let mut at = 0;
    value(reply, &mut at, 0)
}

fn value(bytes: &[u8], at: &mut usize, depth: usize) -> Result<Value, Garbled> {
    let line = Line::read(bytes, *at)?.ok_or(Garbled)?;
    let begin = *at;
    *at = line.end;
    Ok(match line.kind {
        b':' => Value::Int(line.number()?),
        b'$' => match usize::try_from(line.number()?) {
            Ok(length) => {
                *at += length + 2;
                Value::BulkString(bytes.get(line.end..line.end + length).ok_or(Garbled)?.to_vec())
            }
            Err(_) => Value::Nil,
        },
        b'*' if depth == DEEPEST => return Err(Garbled),
        b'*' => match usize::try_from(line.number()?) {
            Ok(count) => {
                // An element has at least its kind and a line's end.
                let mut items = Vec::with_capacity(count.min((bytes.len() - line.end) / 3));
                for _ in 0..count {
                    items.push(value(bytes, at, depth + 1)?);
                }
                Value::Array(items)
            }
            Err(_) => Value::Nil,
        },
        b'+' if line.text == b"OK" => Value::Okay,
        b'+' => Value::SimpleString(String::from_utf8_lossy(line.text).into_owned()),
        // How redis-rs holds an error is its own affair.
        b'-' => redis::parse_redis_value(&bytes[begin..line.end]).map_err(|_| Garbled)?,
        _ => return Err(Garbled),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn whole(bytes: &[u8]) -> Value {
        assert_eq!(Scanner::default().find_end(bytes), Ok(Some(bytes.len())), "{}", bytes.escape_ascii());
        parse(bytes).unwrap()
    }

    #[test]
    fn requests() {
        let mut request = Vec::new();
        begin(&mut request, 3);
        for arg in ["SET", "", "0123456789"] {
            push(&mut request, arg.as_bytes());
        }
        assert_eq!(request, b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$10\r\n0123456789\r\n");
        assert_eq!(request, *redis::cmd("SET").arg("").arg("0123456789").get_packed_command());
    }

    #[test]
    fn replies_of_every_kind() {
        assert_eq!(whole(b"+OK\r\n"), Value::Okay);
        assert_eq!(whole(b"+FINE\r\n"), Value::SimpleString("FINE".to_owned()));
        assert_eq!(whole(b":-12\r\n"), Value::Int(-12));
        assert_eq!(whole(b":9223372036854775807\r\n"), Value::Int(i64::MAX));
        assert_eq!(whole(b":-9223372036854775808\r\n"), Value::Int(i64::MIN));
        assert_eq!(whole(b"$-1\r\n"), Value::Nil);
        assert_eq!(whole(b"*-1\r\n"), Value::Nil);
        assert_eq!(whole(b"$0\r\n\r\n"), bulk(""));
        assert_eq!(whole(b"$4\r\na\r\nb\r\n"), bulk("a\r\nb"));
        assert_eq!(whole(b"*0\r\n"), Value::Array(vec![]));
        assert_eq!(
            whole(b"*3\r\n*2\r\n:1\r\n$1\r\nx\r\n$-1\r\n*0\r\n"),
            Value::Array(vec![Value::Array(vec![Value::Int(1), bulk("x")]), Value::Nil, Value::Array(vec![])])
        );
    }

    #[test]
    fn errors_are_values_wherever_they_stand() {
        let Value::Array(items) = whole(b"*2\r\n-ARDIQ_X one two\r\n-ERR three\r\n") else { panic!() };
        let told: Vec<_> = items
            .iter()
            .map(|item| match item {
                Value::ServerError(error) => (error.code(), error.details()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, [("ARDIQ_X", Some("one two")), ("ERR", Some("three"))]);
    }

    #[test]
    fn a_reply_may_come_in_pieces() {
        let bytes = b"*3\r\n$5\r\nab\r\nc\r\n*1\r\n:77\r\n-ERR x y\r\n+OK\r\n";
        let mut scanner = Scanner::default();
        for length in 0..bytes.len() - 5 {
            assert_eq!(scanner.find_end(&bytes[..length]), Ok(None), "{length}");
        }
        assert_eq!(scanner.find_end(bytes), Ok(Some(bytes.len() - 5)), "the next reply is not part of it");
    }

    #[test]
    fn nonsense_is_told() {
        for bytes in [&b"HTTP/1.1 400\r\n"[..], b"$x\r\n", b":\r\n", b"+a\rb\r\n", b":99999999999999999999\r\n"] {
            let scanned = Scanner::default().find_end(bytes);
            let parsed = parse(bytes);
            assert!(scanned.is_err() || parsed.is_err(), "{}", bytes.escape_ascii());
        }
        let deep = b"*1\r\n".repeat(100_000);
        assert_eq!(parse(&[&deep[..], b":1\r\n"].concat()), Err(Garbled));
        assert_eq!(parse(b"*1000000000\r\n:1\r\n"), Err(Garbled));
    }
}
