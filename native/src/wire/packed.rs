//! Many texts as one argument, and a reply that came as one: msgpack, as far as the server's Lua writes it. To the server
//! each argument and each part of a reply is an object of its own, which costs more than the text in it.
//!
//! Must not know: what the texts mean.

use redis::Value;

/// An array of texts.
pub fn pack<'a>(texts: impl ExactSizeIterator<Item = &'a [u8]>, bytes: usize) -> Vec<u8> {
    let mut packed = Vec::with_capacity(bytes + 5 * texts.len() + 5);
    header(&mut packed, [0x90, 0, 0xdc, 0xdd], 15, texts.len());
    for text in texts {
        header(&mut packed, [0xa0, 0xd9, 0xda, 0xdb], 31, text.len());
        packed.extend_from_slice(text);
    }
    packed
}

/// A length, after the marks for those that fit the mark itself (up to `small`), one byte (0: no such mark), two and four.
fn header(packed: &mut Vec<u8>, marks: [u8; 4], small: usize, length: usize) {
    match length {
        _ if length <= small => packed.push(marks[0] | length as u8),
        0..=0xff if marks[1] != 0 => packed.extend([marks[1], length as u8]),
        0..=0xffff => {
            packed.push(marks[2]);
            packed.extend((length as u16).to_be_bytes());
        }
        _ => {
            packed.push(marks[3]);
            packed.extend((length as u32).to_be_bytes());
        }
    }
}

/// An array of texts, whole numbers and such arrays; `None` where it is anything else.
pub fn unpack(mut packed: &[u8]) -> Option<Value> {
    let value = read(&mut packed, 0)?;
    packed.is_empty().then_some(value)
}

/// What the library replies is flat; a reply that is not from it may be anything.
const DEEPEST: usize = 8;

fn read(packed: &mut &[u8], depth: usize) -> Option<Value> {
    let mark = take(packed, 1)?[0];
    match mark {
        0x00..=0x7f => Some(Value::Int(mark.into())),
        0xe0.. => Some(Value::Int((mark as i8).into())),
        0xcc..=0xcf => i64::try_from(unsigned(packed, 1 << (mark - 0xcc))?).ok().map(Value::Int),
        0xd0..=0xd3 => {
            let width = 1 << (mark - 0xd0);
            let unused = 64 - 8 * width as u32;
            Some(Value::Int((unsigned(packed, width)? << unused) as i64 >> unused))
        }
        0xa0..=0xbf => text(packed, (mark & 0x1f).into()),
        0xd9..=0xdb => {
            let length = unsigned(packed, 1 << (mark - 0xd9))?;
            text(packed, length)
        }
        // An empty array may come as an empty map.
        0x80 => Some(Value::Array(Vec::new())),
        0x90..=0x9f => array(packed, (mark & 0x0f).into(), depth),
        0xdc | 0xdd => {
            let length = unsigned(packed, if mark == 0xdc { 2 } else { 4 })?;
            array(packed, length, depth)
        }
        _ => None,
    }
}

fn array(packed: &mut &[u8], length: u64, depth: usize) -> Option<Value> {
    // Each item has a byte at least.
    let length = usize::try_from(length).ok().filter(|length| *length <= packed.len() && depth < DEEPEST)?;
    let mut items = Vec::with_capacity(length);
    for _ in 0..length {
        items.push(read(packed, depth + 1)?);
    }
    Some(Value::Array(items))
}

fn text(packed: &mut &[u8], length: u64) -> Option<Value> {
    Some(Value::BulkString(take(packed, usize::try_from(length).ok()?)?.to_vec()))
}

fn unsigned(packed: &mut &[u8], width: usize) -> Option<u64> {
    Some(take(packed, width)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn take<'a>(packed: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = packed.split_at_checked(count)?;
    *packed = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_every_length_come_back() {
        for length in [0, 1, 31, 32, 255, 256, 65_535, 65_536] {
            let long = vec![b'x'; length];
            let packed = pack([&long[..], b"", &[0xff, 0]].into_iter(), length);
            let expected = [long, Vec::new(), vec![0xff, 0]].map(Value::BulkString).to_vec();
            assert_eq!(unpack(&packed), Some(Value::Array(expected)), "{length}");
        }
        for count in [0, 15, 16, 65_535, 65_536] {
            let packed = pack(std::iter::repeat_n(&b"a"[..], count), count);
            assert_eq!(unpack(&packed), Some(Value::Array(vec![Value::BulkString(b"a".to_vec()); count])), "{count}");
        }
    }

    #[test]
    fn numbers_as_the_server_writes_them() {
        let numbers: [(&[u8], i64); 10] = [
            (b"\x00", 0),
            (b"\x7f", 127),
            (b"\xff", -1),
            (b"\xcc\x80", 128),
            (b"\xcd\x01\x00", 256),
            (b"\xce\x00\x01\x00\x00", 65_536),
            (b"\xcf\x00\x00\x01\x00\x00\x00\x00\x00", 1 << 40),
            (b"\xd0\x80", -128),
            (b"\xd1\xff\x00", -256),
            (b"\xd3\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
        ];
        for (packed, number) in numbers {
            assert_eq!(unpack(packed), Some(Value::Int(number)), "{packed:?}");
        }
    }

    #[test]
    fn what_is_cut_off_or_too_deep_is_nothing() {
        let whole = pack([&b"abc"[..], &[b'x'; 300]].into_iter(), 303);
        for length in 0..whole.len() {
            assert_eq!(unpack(&whole[..length]), None, "{length}");
        }
        assert_eq!(unpack(&[0x91; 64]), None);
        assert_eq!(unpack(b"\xdd\xff\xff\xff\xff"), None);
        assert_eq!(unpack(b"\x90\x90"), None);
        assert_eq!(unpack(b"\xc0"), None);
    }
}
