//! What this process may do.

use std::{fmt, fs};

/// A capability of the kernel's list (capabilities(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Configure the network: queues, verdicts, large socket buffers.
    NetAdmin,
    /// Become another user.
    SetUid,
    /// Leave one's groups.
    SetGid,
}

impl Capability {
    /// Whether this process has it in effect.
    pub fn in_effect(self) -> bool {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        effective(&status).is_some_and(|set| set & (1 << self.number()) != 0)
    }

    /// The kernel's number.
    pub(crate) fn number(self) -> u32 {
        match self {
            Capability::SetGid => 6,
            Capability::SetUid => 7,
            Capability::NetAdmin => 12,
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Capability::NetAdmin => "CAP_NET_ADMIN",
            Capability::SetUid => "CAP_SETUID",
            Capability::SetGid => "CAP_SETGID",
        })
    }
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read() {
        assert_eq!(effective("Name:\tlb\nCapEff:\t0000000000001000\n"), Some(1 << 12));
        assert_eq!(effective("Name:\tlb\n"), None);
        assert_eq!(effective("CapEff:\tnone\n"), None);
    }
}
