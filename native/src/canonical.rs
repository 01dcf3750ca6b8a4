//! Writes canonical JSON: strings, and objects whose members come in any order.

/// The most levels of objects and lists (`canonical.MAX_DEPTH`).
pub const MAX_DEPTH: usize = 100;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Bytes that stand for themselves inside a string: all but quotation marks, backslashes and control characters.
pub const PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut byte = 0;
    while byte < 0x20 {
        plain[byte] = false;
        byte += 1;
    }
    plain[b'"' as usize] = false;
    plain[b'\\' as usize] = false;
    plain
};

/// Write a byte that is not plain as it is escaped in a string.
pub fn write_escaped(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0C => b'f',
        b'\r' => b'r',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Write text as a JSON string, with its quotation marks.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    out.push(b'"');
    let mut start = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if !PLAIN[usize::from(*byte)] {
            out.extend_from_slice(&bytes[start..at]);
            write_escaped(*byte, out);
            start = at + 1;
        }
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

/// Write bytes in hexadecimal.
pub fn write_hex(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(bytes.iter().flat_map(|byte| [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]));
}

/// A member of an object that is being written: its name, unescaped, and its place in the output.
#[derive(Clone, Copy)]
struct Member {
    /// Where the name is: in the output if it has no escapes there, otherwise in `Writer::names`.
    name: (usize, usize),
    is_escaped: bool,
    start: usize,
    end: usize,
}

/// An object that is being written.
#[must_use]
pub struct Open {
    start: usize,
    first: usize,
    names: usize,
    is_sorted: bool,
}

/// Writes canonical JSON at the end of `out`.
#[derive(Default)]
pub struct Writer {
    /// What was written so far.
    pub out: Vec<u8>,
    members: Vec<Member>,
    names: Vec<u8>,
    sorted: Vec<u8>,
}

impl Writer {
    /// Forget the objects that were being written when a value turned out to be no one's.
    pub fn give_up(&mut self, length: usize) {
        self.out.truncate(length);
        self.members.clear();
        self.names.clear();
    }

    /// Begin an object.
    pub fn open(&mut self) -> Open {
        self.out.push(b'{');
        Open { start: self.out.len(), first: self.members.len(), names: self.names.len(), is_sorted: true }
    }

    /// Begin a member. Write its name next, then call `named`.
    pub fn member(&mut self, open: &Open) -> usize {
        if self.members.len() > open.first {
            self.out.push(b',');
        }
        self.out.len()
    }

    /// Note the name of the member that began at `start`: it was written as a string. `unescaped` is the name if the
    /// output has escapes. Return None if the member before has the same name.
    pub fn named(&mut self, open: &mut Open, start: usize, unescaped: Option<&[u8]>) -> Option<()> {
        let name = match unescaped {
            None => (start + 1, self.out.len() - 1),
            Some(text) => {
                self.names.extend_from_slice(text);
                (self.names.len() - text.len(), self.names.len())
            }
        };
        let member = Member { name, is_escaped: unescaped.is_some(), start, end: 0 };
        if open.is_sorted && self.members.len() > open.first {
            let before = self.members[self.members.len() - 1];
            match self.name(&before).cmp(self.name(&member)) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return None,
                std::cmp::Ordering::Greater => open.is_sorted = false,
            }
        }
        self.members.push(member);
        self.out.push(b':');
        Some(())
    }

    /// End the last member, whose value was written.
    pub fn end_member(&mut self) {
        let end = self.out.len();
        if let Some(member) = self.members.last_mut() {
            member.end = end;
        }
    }

    /// End an object. Its members are sorted now. Return None if two have the same name.
    pub fn close(&mut self, open: Open) -> Option<()> {
        if !open.is_sorted {
            self.sort(&open)?;
        }
        self.members.truncate(open.first);
        self.names.truncate(open.names);
        self.out.push(b'}');
        Some(())
    }

    fn name(&self, member: &Member) -> &[u8] {
        let (start, end) = member.name;
        if member.is_escaped { &self.names[start..end] } else { &self.out[start..end] }
    }

    fn sort(&mut self, open: &Open) -> Option<()> {
        let mut members = self.members.split_off(open.first);
        members.sort_unstable_by(|one, other| self.name(one).cmp(self.name(other)));
        if members.windows(2).any(|pair| self.name(&pair[0]) == self.name(&pair[1])) {
            return None;
        }
        self.sorted.clear();
        for member in &members {
            if !self.sorted.is_empty() {
                self.sorted.push(b',');
            }
            self.sorted.extend_from_slice(&self.out[member.start..member.end]);
        }
        self.out.truncate(open.start);
        self.out.extend_from_slice(&self.sorted);
        Some(())
    }
}
