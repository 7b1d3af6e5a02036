//! Changing a frame so that its receiver must notice, or cannot.

use crate::chance::Random;
use crate::frame::{Frame, Packet};

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// A bit of the data: the transport's checksum no longer fits.
    Data,
    /// Two words of the data, so that the checksums of TCP, UDP and ICMP still fit.
    Mended,
    /// A bit of the IP header: in IPv4 its own checksum no longer fits, in IPv6, where an address
    /// is hit, that of the transport.
    Header,
}

/// False when there is nothing in the frame that could be changed so.
pub fn corrupt(frame: &mut Frame, harm: Harm, random: &mut Random) -> bool {
    match harm {
        Harm::Data => {
            let place = match &frame.packet {
                Some(packet) => packet.data(),
                // Behind the addresses of Ethernet.
                None => frame.bytes.len().min(14)..frame.bytes.len(),
            };
            flip(&mut frame.bytes[place], random)
        }
        Harm::Mended => match &frame.packet {
            Some(packet) => {
                let place = packet.data();
                move_sum(&mut frame.bytes[place], random)
            }
            None => false,
        },
        Harm::Header => match &frame.packet {
            Some(packet) => {
                let place = addresses(packet);
                flip(&mut frame.bytes[place], random)
            }
            None => false,
        },
    }
}

/// Where the source address is: what the way of the packet does not depend on.
fn addresses(packet: &Packet) -> std::ops::Range<usize> {
    let start = packet.header.start;
    if packet.is_v4 { start + 12..start + 16 } else { start + 8..start + 24 }
}

fn flip(bytes: &mut [u8], random: &mut Random) -> bool {
    if bytes.is_empty() {
        return false;
    }
    let at = random.index(bytes.len());
    bytes[at] ^= 1 << random.below(8);
    true
}

/// Adds to one word what it takes from another. The sum of all words, of which the checksum is
/// made, knows no difference between 0 and 65,535.
fn move_sum(bytes: &mut [u8], random: &mut Random) -> bool {
    let words = bytes.len() / 2;
    if words < 2 {
        return false;
    }
    let one = random.index(words);
    let other = (one + 1 + random.index(words - 1)) % words;
    let amount = 1 + random.below(65_534);
    for (word, amount) in [(one, amount), (other, 65_535 - amount)] {
        let old = u64::from(u16::from_be_bytes([bytes[2 * word], bytes[2 * word + 1]]));
        let [.., high, low] = ((old + amount) % 65_535).to_be_bytes();
        bytes[2 * word..2 * word + 2].copy_from_slice(&[high, low]);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::tests::{v4, v6};

    /// What checksums are made of.
    fn sum(bytes: &[u8]) -> u64 {
        let words = bytes.chunks(2).map(|word| match word {
            [high, low] => u64::from(u16::from_be_bytes([*high, *low])),
            _ => u64::from(word[0]) << 8,
        });
        words.sum::<u64>() % 65_535
    }

    /// Frames that were harmed, each with the one that it was.
    fn harmed(harm: Harm) -> impl Iterator<Item = (Frame, Frame)> {
        let mut random = Random::new(1);
        let originals = [
            v4(1, 0..101, true),
            v4(1, 0..1480, false),
            v6(1, 1448..2001, true),
            // As what is all zeros.
            Frame { bytes: vec![0; 1500], ..v4(1, 0..1480, false) },
        ];
        (0..400).map(move |turn| {
            let original = originals[turn % originals.len()].clone();
            let mut frame = original.clone();
            assert!(corrupt(&mut frame, harm, &mut random));
            (original, frame)
        })
    }

    #[test]
    fn a_changed_bit_changes_the_checksum_and_no_header() {
        for (original, frame) in harmed(Harm::Data) {
            let data = original.packet.as_ref().unwrap().data();
            assert_ne!(sum(&frame.bytes[data.clone()]), sum(&original.bytes[data.clone()]));
            assert_eq!(frame.bytes[..data.start], original.bytes[..data.start]);
        }
    }

    #[test]
    fn mended_data_differ_under_the_same_checksum() {
        for (original, frame) in harmed(Harm::Mended) {
            let data = original.packet.as_ref().unwrap().data();
            assert_ne!(frame.bytes, original.bytes);
            assert_eq!(frame.bytes[..data.start], original.bytes[..data.start]);
            assert_eq!(sum(&frame.bytes[data.clone()]), sum(&original.bytes[data]));
        }
    }

    #[test]
    fn a_header_is_hit_where_a_checksum_covers_it() {
        for (original, frame) in harmed(Harm::Header) {
            let packet = original.packet.as_ref().unwrap();
            assert_ne!(
                sum(&frame.bytes[packet.header.clone()]),
                sum(&original.bytes[packet.header.clone()])
            );
            assert_eq!(frame.bytes[packet.header.end..], original.bytes[packet.header.end..]);
        }
    }

    #[test]
    fn what_has_no_data_stays() {
        let mut random = Random::new(1);
        let frame = v4(1, 0..8, true);
        for harm in [Harm::Data, Harm::Mended] {
            let mut harmed = frame.clone();
            assert!(!corrupt(&mut harmed, harm, &mut random));
            assert_eq!(harmed.bytes, frame.bytes);
        }
    }
}
