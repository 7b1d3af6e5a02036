//! What is in a packet: zeros, where an answer holds the server's name at the
//! beginning, and at the end a number by which the answer is known.

/// What a server keeps for its name in the first packet of a stream, and the
/// shortest packet.
pub const HEADER: usize = 64;

/// The number at the end: whose packet it is, and which one.
pub const LABEL: usize = 16;

/// The shortest datagram: no name is longer than its part.
pub const SHORTEST_DATAGRAM: usize = HEADER + LABEL;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Drawn for each connection, so that no other's answer is taken for one.
    pub cookie: u64,
    pub number: u64,
}

impl Label {
    pub fn bytes(self) -> [u8; LABEL] {
        let mut bytes = [0; LABEL];
        bytes[..8].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[8..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    pub fn read(bytes: [u8; LABEL]) -> Self {
        let all = u128::from_be_bytes(bytes);
        let half = |part: u128| u64::try_from(part & u128::from(u64::MAX)).expect("64 bits");
        Self { cookie: half(all >> 64), number: half(all) }
    }

    /// Puts the label at the end of a packet that has room for it.
    pub fn put(self, packet: &mut [u8]) {
        let begin = packet.len() - LABEL;
        packet[begin..].copy_from_slice(&self.bytes());
    }

    /// The label at the end of a packet.
    pub fn of(packet: &[u8]) -> Option<Self> {
        packet.last_chunk().map(|bytes| Self::read(*bytes))
    }
}

/// The name at the beginning of an answer: all up to the first zero.
pub fn host_name(answer: &[u8]) -> String {
    let header = &answer[..answer.len().min(HEADER)];
    let length = header.iter().position(|byte| *byte == 0).unwrap_or(header.len());
    String::from_utf8_lossy(&header[..length]).into_owned()
}

/// Whether an answer begins with this name.
pub fn is_from(answer: &[u8], name: &str) -> bool {
    let name = name.as_bytes();
    answer.starts_with(name)
        && (name.len() == HEADER || answer.get(name.len()).is_none_or(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_read_back() {
        let label = Label { cookie: 0x0102_0304_0506_0708, number: u64::MAX - 1 };
        let mut packet = [0; 80];
        label.put(&mut packet);
        assert_eq!(Label::of(&packet), Some(label));
        assert_eq!(packet[64..66], [1, 2]);
        assert_eq!(packet[..64], [0; 64]);
        assert_eq!(Label::of(&packet[..15]), None);
    }

    #[test]
    fn a_name_ends_at_a_zero_or_with_the_header() {
        assert_eq!(host_name(b"vm-001\0\0"), "vm-001");
        assert_eq!(host_name(&[b'x'; 100]), "x".repeat(64));
        assert_eq!(host_name(b""), "");
        assert_eq!(host_name(b"\xff\0"), "\u{fffd}");
        assert!(is_from(b"vm-001\0", "vm-001"));
        assert!(!is_from(b"vm-0011\0", "vm-001"));
        assert!(!is_from(b"vm-002\0", "vm-001"));
        assert!(is_from(&[b'x'; 100], &"x".repeat(64)));
    }
}
