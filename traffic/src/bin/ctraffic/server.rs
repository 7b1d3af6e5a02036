//! The server: echoes, and says once on each stream who it is.

use traffic::server::Service;

use traffic::packet::HEADER;

/// The name of this host.
pub struct Echo(pub String);

/// The first bytes of a stream, as long as they are not complete.
#[derive(Default)]
pub struct Start {
    header: Vec<u8>,
    is_over: bool,
}

impl Echo {
    fn put_name(&self, bytes: &mut [u8]) {
        let length = self.0.len().min(bytes.len());
        bytes[..length].copy_from_slice(&self.0.as_bytes()[..length]);
    }
}

impl Service for Echo {
    type Stream = Start;

    fn greet(&self, _: &mut Vec<u8>) {}

    fn hear(&self, start: &mut Start, mut bytes: &[u8], answer: &mut Vec<u8>) {
        if !start.is_over {
            let missing = HEADER - start.header.len();
            let (header, rest) = bytes.split_at(missing.min(bytes.len()));
            start.header.extend_from_slice(header);
            if start.header.len() < HEADER {
                return;
            }
            self.put_name(&mut start.header);
            answer.append(&mut start.header);
            *start = Start { header: Vec::new(), is_over: true };
            bytes = rest;
        }
        answer.extend_from_slice(bytes);
    }

    fn answer_datagram(&self, datagram: &[u8], answer: &mut Vec<u8>) {
        answer.extend_from_slice(datagram);
        self.put_name(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(pieces: &[&[u8]]) -> Vec<u8> {
        let echo = Echo("vm-001".to_owned());
        let (mut start, mut answer) = (Start::default(), Vec::new());
        for piece in pieces {
            echo.hear(&mut start, piece, &mut answer);
        }
        answer
    }

    #[test]
    fn a_stream_begins_with_the_name_and_goes_on_as_an_echo() {
        let question: Vec<u8> = (0..200).collect();
        let mut expected = question.clone();
        expected[..6].copy_from_slice(b"vm-001");
        assert_eq!(heard(&[&question]), expected);
        // However it comes in pieces.
        for cut in [1, 5, 63, 64, 65, 199] {
            assert_eq!(heard(&[&question[..cut], &question[cut..]]), expected, "{cut}");
        }
        assert_eq!(heard(&[&question[..63]]), b"");
    }

    #[test]
    fn a_datagram_is_returned_with_the_name_upon_it() {
        let echo = Echo("vm-001".to_owned());
        for (datagram, expected) in
            [(&b"0123456789"[..], &b"vm-0016789"[..]), (b"abc", b"vm-"), (b"", b"")]
        {
            let mut answer = Vec::new();
            echo.answer_datagram(datagram, &mut answer);
            assert_eq!(answer, expected);
        }
    }
}
