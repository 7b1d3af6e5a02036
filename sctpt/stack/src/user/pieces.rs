//! A packet of the library, which may lie in several pieces.

use std::net::Ipv4Addr;
use std::slice;

use libc::{iovec, msghdr};

pub(super) const IPV4_HEADER: usize = 20;
/// Of a chunk: type, flags, length.
const CHUNK_HEADER: usize = 4;
/// Chunks with data of users, behind which there are no others (RFC 9260, 6.10; RFC 8260).
const DATA: u8 = 0;
const I_DATA: u8 = 64;

/// The pieces of a message while the library's call lasts.
#[derive(Clone, Copy)]
pub(super) struct Pieces<'a>(&'a [iovec]);

impl<'a> Pieces<'a> {
    /// # Safety
    /// The message and its pieces are valid as long as this is.
    pub unsafe fn of(message: &'a msghdr) -> Self {
        // SAFETY: the caller promises that the pieces are there.
        Pieces(unsafe { slice::from_raw_parts(message.msg_iov, message.msg_iovlen) })
    }

    /// Bytes of all pieces.
    pub fn length(self) -> usize {
        self.0.iter().map(|piece| piece.iov_len).sum()
    }

    /// Copies what stands at `at`, as far as there is anything; says how much.
    pub fn copy(self, mut at: usize, place: &mut [u8]) -> usize {
        let mut done = 0;
        for piece in self.0 {
            let wanted = piece.iov_len.saturating_sub(at).min(place.len() - done);
            if wanted > 0 {
                // SAFETY: `at + wanted` is within the piece.
                let start = unsafe { piece.iov_base.cast::<u8>().add(at) };
                // SAFETY: whoever made this promised that the piece is there.
                let bytes = unsafe { slice::from_raw_parts(start, wanted) };
                place[done..done + wanted].copy_from_slice(bytes);
                done += wanted;
            }
            at = at.saturating_sub(piece.iov_len);
        }
        done
    }

    /// Types of the chunks from `at` on, up to data or the end of the packet.
    pub fn control_chunks(self, mut at: usize, end: usize) -> impl Iterator<Item = u8> + 'a {
        std::iter::from_fn(move || {
            let mut header = [0; CHUNK_HEADER];
            let is_there = at + CHUNK_HEADER <= end && self.copy(at, &mut header) == CHUNK_HEADER;
            let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
            if !is_there || length < CHUNK_HEADER || matches!(header[0], DATA | I_DATA) {
                return None;
            }
            at += length.next_multiple_of(4);
            Some(header[0])
        })
    }

    /// Writes the source into the packet's IPv4 header. SCTP's checksum does not cover it, and the kernel
    /// makes the header's.
    ///
    /// # Safety
    /// The packet begins with such a header, and nobody looks at it during the call.
    pub unsafe fn set_source(self, source: Ipv4Addr) {
        let Some(piece) = self.0.first().filter(|piece| piece.iov_len >= IPV4_HEADER) else {
            return;
        };
        // SAFETY: the piece holds the header, and the caller promises that nobody looks at it.
        let header = unsafe { slice::from_raw_parts_mut(piece.iov_base.cast::<u8>(), IPV4_HEADER) };
        header[12..16].copy_from_slice(&source.octets());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces of these parts.
    fn list(parts: &mut [&mut [u8]]) -> Vec<iovec> {
        let piece = |part: &mut &mut [u8]| iovec {
            iov_base: part.as_mut_ptr().cast(),
            iov_len: part.len(),
        };
        parts.iter_mut().map(piece).collect()
    }

    #[test]
    fn what_lies_in_pieces_is_copied() {
        let (mut one, mut two) = ([1, 2, 3], [4, 5]);
        let list = list(&mut [&mut one, &mut [], &mut two]);
        let pieces = Pieces(&list);
        assert_eq!(pieces.length(), 5);
        let mut place = [0; 3];
        assert_eq!((pieces.copy(1, &mut place), place), (3, [2, 3, 4]));
        assert_eq!((pieces.copy(3, &mut place), place), (2, [4, 5, 4]));
        assert_eq!(pieces.copy(5, &mut place), 0);
    }

    #[test]
    fn chunks_before_data_are_found() {
        let chunks = |mut bytes: Vec<u8>| -> Vec<u8> {
            let (front, back) = bytes.split_at_mut(6);
            let list = list(&mut [front, back]);
            let pieces = Pieces(&list);
            pieces.control_chunks(2, pieces.length()).collect()
        };
        // A heartbeat of 6 bytes and its filling, an acknowledgement, data, and what cannot be behind data.
        let mut packet = vec![9, 9, 4, 0, 0, 6, 1, 1, 0, 0, 5, 0, 0, 4, 0, 3, 0, 4, 4, 0, 0, 4];
        assert_eq!(chunks(packet.clone()), [4, 5]);
        packet[14] = I_DATA;
        assert_eq!(chunks(packet.clone()), [4, 5]);
        packet[14] = 3;
        assert_eq!(chunks(packet.clone()), [4, 5, 3, 4]);
        // Cut off, and without a length.
        assert_eq!(chunks(packet[..13].to_vec()), [4]);
        packet[5] = 3;
        assert_eq!(chunks(packet), []);
    }

    #[test]
    fn the_source_is_replaced() {
        let mut header = [7; IPV4_HEADER];
        // SAFETY: the header is there and nobody looks at it.
        unsafe { Pieces(&list(&mut [&mut header])).set_source([192, 0, 2, 1].into()) };
        assert_eq!(header[10..18], [7, 7, 192, 0, 2, 1, 7, 7]);
        let mut short = [7; 19];
        // SAFETY: as above.
        unsafe { Pieces(&list(&mut [&mut short])).set_source([192, 0, 2, 1].into()) };
        assert_eq!(short, [7; 19]);
    }
}
