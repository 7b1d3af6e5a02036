//! What a stack tells about an association. Both stacks use the layout of the sockets interface (RFC 6458,
//! 6.1); only some numbers differ.

use std::net::IpAddr;

use crate::{PathChange, address};

/// Where a stack's numbers begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbering {
    /// Added to the type of each notification.
    pub kind: u16,
    /// Of the first state of associations, and of paths.
    pub state: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notification {
    Association {
        change: AssociationChange,
        /// The peer's ABORT came with it.
        with_abort: bool,
    },
    Path {
        address: IpAddr,
        change: PathChange,
    },
    /// Something else.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AssociationChange {
    Up,
    Lost,
    Restarted,
    /// It ended in order.
    Closed,
    NotStarted,
}

pub(crate) const ASSOCIATION_CHANGE: u16 = 1;
pub(crate) const PATH_CHANGE: u16 = 2;
/// Length of `sctp_assoc_change` without what may follow.
const ASSOCIATION_CHANGE_LENGTH: u32 = 20;

/// Understands one; none if it is cut off.
pub(crate) fn parse(bytes: &[u8], numbering: Numbering) -> Option<Notification> {
    let kind = u16_at(bytes, 0)?.wrapping_sub(numbering.kind);
    let length = u32_at(bytes, 4)?;
    let notification = match kind {
        ASSOCIATION_CHANGE => {
            let change = match u16_at(bytes, 8)?.wrapping_sub(numbering.state) {
                0 => AssociationChange::Up,
                1 => AssociationChange::Lost,
                2 => AssociationChange::Restarted,
                3 => AssociationChange::Closed,
                4 => AssociationChange::NotStarted,
                _ => return Some(Notification::Other),
            };
            let with_abort = length > ASSOCIATION_CHANGE_LENGTH;
            Notification::Association { change, with_abort }
        }
        PATH_CHANGE => {
            let state = u32_at(bytes, 136)?.wrapping_sub(u32::from(numbering.state));
            let (socket, _) = address::unpack(&bytes[8..136])?;
            let change = match state {
                0 => PathChange::Up,
                1 => PathChange::Down,
                2 => PathChange::Removed,
                3 => PathChange::Added,
                4 => PathChange::Primary,
                5 => PathChange::Confirmed,
                _ => return Some(Notification::Other),
            };
            Notification::Path { address: socket.ip(), change }
        }
        _ => Notification::Other,
    };
    Some(notification)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Numbering = Numbering { kind: 0, state: 1 };
    const KERNEL: Numbering = Numbering { kind: 0x8000, state: 0 };

    #[test]
    fn associations_come_and_go() {
        // Type, flags, length, state, error, streams out and in, association.
        let up = [1, 0, 0, 0, 26, 0, 0, 0, 1, 0, 0, 0, 10, 0, 10, 0, 7, 0, 0, 0, 1, 3, 5, 6, 0, 0];
        assert_eq!(
            parse(&up, USER),
            Some(Notification::Association { change: AssociationChange::Up, with_abort: true })
        );
        let lost = [1, 0x80, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0, 10, 0, 10, 0, 7, 0, 0, 0];
        assert_eq!(
            parse(&lost, KERNEL),
            Some(Notification::Association { change: AssociationChange::Lost, with_abort: false })
        );
        assert_eq!(parse(&lost[..9], KERNEL), None);
        assert_eq!(parse(&[9; 20], USER), Some(Notification::Other));
        assert_eq!(parse(&[], USER), None);
    }

    #[test]
    fn paths_change() {
        let mut bytes = vec![2, 0, 0, 0, 152, 0, 0, 0];
        bytes.extend(address::packed(["192.0.2.9:6000".parse().unwrap()].into_iter()));
        bytes.resize(136, 0);
        bytes.extend([2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        let down = Notification::Path { address: [192, 0, 2, 9].into(), change: PathChange::Down };
        assert_eq!(parse(&bytes, USER), Some(down));
        bytes[1] = 0x80;
        bytes[136] = 5;
        let confirmed =
            Notification::Path { address: [192, 0, 2, 9].into(), change: PathChange::Confirmed };
        assert_eq!(parse(&bytes, KERNEL), Some(confirmed));
        assert_eq!(parse(&bytes[..139], KERNEL), None);
    }
}
