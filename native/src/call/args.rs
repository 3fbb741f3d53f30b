//! Arguments of a call, packed one behind the other in one buffer.
//!
//! Owns: nothing but bytes and where each argument ends, so that a step of a hundred outcomes
//! costs two allocations and can be sent again as it is. Must not know: what the arguments mean.

/// One argument.
#[derive(Clone, Copy, Debug)]
pub enum Arg<'a> {
    Bytes(&'a [u8]),
    Int(i64),
}

impl<'a> From<&'a [u8]> for Arg<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a str> for Arg<'a> {
    fn from(text: &'a str) -> Self {
        Self::Bytes(text.as_bytes())
    }
}

impl From<i64> for Arg<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

/// A growing list of arguments, ready to be copied into a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    data: Vec<u8>,
    ends: Vec<usize>,
}

impl Args {
    /// An empty list with room for `count` arguments of `bytes` in all.
    pub fn with_capacity(count: usize, bytes: usize) -> Self {
        Self { data: Vec::with_capacity(bytes), ends: Vec::with_capacity(count) }
    }

    pub fn push(&mut self, arg: impl AsRef<[u8]>) {
        self.data.extend_from_slice(arg.as_ref());
        self.ends.push(self.data.len());
    }

    pub fn push_arg(&mut self, arg: Arg<'_>) {
        match arg {
            Arg::Bytes(bytes) => self.push(bytes),
            Arg::Int(number) => self.push_int(number),
        }
    }

    pub fn push_int(&mut self, number: i64) {
        use std::io::Write;
        write!(self.data, "{number}").expect("a Vec never refuses");
        self.ends.push(self.data.len());
    }

    /// Append all arguments of `other`.
    pub fn append(&mut self, other: &Args) {
        self.append_range(other, 0, other.len());
    }

    /// Append `other`, without copying it where there is nothing here yet.
    pub fn append_all(&mut self, other: Args) {
        if self.is_empty() {
            *self = other;
        } else {
            self.append(&other);
        }
    }

    /// Append `other`'s arguments `from..to`.
    pub fn append_range(&mut self, other: &Args, from: usize, to: usize) {
        let (start, stop) = (other.offset(from), other.offset(to));
        let shift = self.data.len();
        self.data.extend_from_slice(&other.data[start..stop]);
        self.ends.extend(other.ends[from..to].iter().map(|end| end - start + shift));
    }

    /// Remove all but the first `count` arguments.
    pub fn truncate(&mut self, count: usize) {
        if count < self.len() {
            self.data.truncate(self.offset(count));
            self.ends.truncate(count);
        }
    }

    /// Remove the first `count` arguments.
    pub fn remove_front(&mut self, count: usize) {
        if count == self.len() {
            self.data.clear();
            self.ends.clear();
            return;
        }
        let start = self.offset(count);
        self.data.drain(..start);
        self.ends.drain(..count);
        for end in &mut self.ends {
            *end -= start;
        }
    }

    /// How many arguments there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Length of all arguments together.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Length of the first `count` arguments together.
    pub fn bytes_of(&self, count: usize) -> usize {
        self.offset(count)
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let arg = &self.data[start..end];
            start = end;
            arg
        })
    }

    /// Argument `index`, which there must be.
    pub fn get(&self, index: usize) -> &[u8] {
        &self.data[self.offset(index)..self.ends[index]]
    }

    /// Where argument `index` starts.
    fn offset(&self, index: usize) -> usize {
        if index == 0 { 0 } else { self.ends[index - 1] }
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for Args {
    fn from_iter<I: IntoIterator<Item = T>>(iter: I) -> Self {
        let mut args = Args::default();
        for arg in iter {
            args.push(arg);
        }
        args
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(args: &Args) -> Vec<&str> {
        args.iter().map(|arg| std::str::from_utf8(arg).unwrap()).collect()
    }

    #[test]
    fn arguments_keep_their_order_and_bounds() {
        let mut args = Args::default();
        args.push("one");
        args.push("");
        args.push_int(-3);
        assert_eq!(texts(&args), ["one", "", "-3"]);
        assert_eq!((args.len(), args.bytes()), (3, 5));
    }

    #[test]
    fn parts_move_between_lists() {
        let all: Args = ["a", "bb", "ccc", "dddd"].into_iter().collect();
        let mut some: Args = ["x"].into_iter().collect();
        some.append_range(&all, 1, 3);
        assert_eq!(texts(&some), ["x", "bb", "ccc"]);
        some.remove_front(2);
        assert_eq!(texts(&some), ["ccc"]);
        some.remove_front(1);
        some.append(&all);
        assert_eq!(texts(&some), ["a", "bb", "ccc", "dddd"]);
        some.truncate(2);
        some.truncate(9);
        assert_eq!(texts(&some), ["a", "bb"]);
    }
}
