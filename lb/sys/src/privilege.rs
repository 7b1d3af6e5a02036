//! Giving up the rights that are not needed once all is set up.

use std::fs;
use std::io;
use std::str::FromStr;

use thiserror::Error;

use crate::capability::Capability;

/// A user with a group, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    uid: libc::uid_t,
    gid: libc::gid_t,
}

/// Why a text does not name a user.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UserError {
    /// Not in /etc/passwd.
    #[error("there is no user {0:?} in /etc/passwd; numbers (UID or UID:GID) are taken too")]
    Unknown(String),
    /// Root would give up nothing.
    #[error("user or group 0 is root's: that gives up nothing")]
    Root,
}

impl FromStr for User {
    type Err = UserError;

    fn from_str(text: &str) -> Result<Self, UserError> {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        User::find(text, &passwd)
    }
}

impl User {
    fn find(text: &str, passwd: &str) -> Result<Self, UserError> {
        let user = by_number(text)
            .or_else(|| passwd.lines().find_map(|line| by_name(text, line)))
            .ok_or_else(|| UserError::Unknown(text.into()))?;
        /// To setresuid(2) this means "leave it as it is".
        const UNCHANGED: u32 = u32::MAX;
        if user.uid == UNCHANGED || user.gid == UNCHANGED {
            return Err(UserError::Unknown(text.into()));
        }
        if user.uid == 0 || user.gid == 0 { Err(UserError::Root) } else { Ok(user) }
    }
}

/// `UID` or `UID:GID`; the group has the user's number if it is not given.
fn by_number(text: &str) -> Option<User> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    Some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
}

/// A line of /etc/passwd if it is the user's: name, password, uid, gid, …
fn by_name(name: &str, line: &str) -> Option<User> {
    let mut fields = line.split(':');
    if fields.next() != Some(name) {
        return None;
    }
    let _password = fields.next();
    let mut number = || fields.next()?.parse().ok();
    Some(User { uid: number()?, gid: number()? })
}

/// Becomes `user` and keeps one capability, for good. To be called before there are other threads:
/// capabilities belong to a thread.
pub fn become_user(user: User, kept: Capability) -> io::Result<()> {
    // SAFETY: no pointers.
    checked(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) })?;
    // SAFETY: the list has no members.
    checked(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: no pointers.
    checked(unsafe { libc::setresgid(user.gid, user.gid, user.gid) })?;
    // SAFETY: no pointers.
    checked(unsafe { libc::setresuid(user.uid, user.uid, user.uid) })?;
    keep_only(kept)?;
    // SAFETY: no pointers.
    checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
}

/// The header and data of capset(2), version 3.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilitySets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

static HEADER: CapabilityHeader = CapabilityHeader { version: 0x2008_0522, pid: 0 };

/// Does something without a capability in effect, and has it in effect again afterwards. What is opened
/// meanwhile never has it.
pub fn without<T>(capability: Capability, work: impl FnOnce() -> T) -> io::Result<T> {
    let mut before = [CapabilitySets { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: the header and both sets of version 3 are valid for reads and writes.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw const HEADER, before.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut lowered = before;
    lowered[capability.number() as usize / 32].effective &= !(1 << (capability.number() % 32));
    set_capabilities(&lowered)?;
    let done = work();
    set_capabilities(&before)?;
    Ok(done)
}

fn keep_only(kept: Capability) -> io::Result<()> {
    let mut sets = [CapabilitySets { effective: 0, permitted: 0, inheritable: 0 }; 2];
    let (word, bit) = (kept.number() / 32, 1 << (kept.number() % 32));
    sets[word as usize] = CapabilitySets { effective: bit, permitted: bit, inheritable: 0 };
    set_capabilities(&sets)
}

fn set_capabilities(sets: &[CapabilitySets; 2]) -> io::Result<()> {
    // SAFETY: the header and both sets of version 3 are valid for reads.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const HEADER, sets.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nlb:x:991:992::/:/bin/false\nbad:x:x:1\n";

    #[test]
    fn a_capability_is_away_for_a_moment() {
        // Capabilities belong to a thread, so others do not notice.
        let in_effect = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap() >> Capability::NetAdmin.number() & 1 == 1
        };
        let before = in_effect();
        assert!(!without(Capability::NetAdmin, in_effect).unwrap());
        assert_eq!(in_effect(), before);
    }

    #[test]
    fn users_by_name_and_by_number() {
        let find = |text| User::find(text, PASSWD);
        assert_eq!(find("lb"), Ok(User { uid: 991, gid: 992 }));
        assert_eq!(find("65534"), Ok(User { uid: 65534, gid: 65534 }));
        assert_eq!(find("65534:7"), Ok(User { uid: 65534, gid: 7 }));
        for unknown in ["", "nobody", "bad", "l", "1:", "-1", "1:x"] {
            assert_eq!(find(unknown), Err(UserError::Unknown(unknown.into())));
        }
        assert_eq!(find("root"), Err(UserError::Root));
        assert_eq!(find("0:5"), Err(UserError::Root));
        assert_eq!(find("5:0"), Err(UserError::Root));
        for unchanged in ["4294967295", "4294967295:5", "5:4294967295"] {
            assert_eq!(find(unchanged), Err(UserError::Unknown(unchanged.into())));
        }
    }
}
