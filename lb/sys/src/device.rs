//! Network devices as the kernel has them: which there are, and what they do to packets before we see them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use socket2::{Domain, Socket, Type};
use thiserror::Error;

/// The devices of this network namespace by name.
pub fn list() -> io::Result<Vec<String>> {
    Ok(names(&fs::read_to_string("/proc/self/net/dev")?))
}

/// /proc/net/dev has two lines of titles; then each line begins with a name.
fn names(table: &str) -> Vec<String> {
    let lines = table.lines().skip(2);
    lines.filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

/// Why a setting of the kernel is not known.
#[derive(Debug, Error)]
#[error("read {}: {cause}", path.display())]
pub struct SettingError {
    path: PathBuf,
    cause: io::Error,
}

impl SettingError {
    /// Whether there is no such setting.
    pub fn is_missing(&self) -> bool {
        self.cause.kind() == io::ErrorKind::NotFound
    }
}

/// How strict a device is about the senders of IPv4 packets that come in by it: 0 not at all, 1 when another way leads
/// to them, 2 when none does. There is one more for `all`; the larger of the two counts.
pub fn source_check(name: &str) -> Result<u8, SettingError> {
    let path = PathBuf::from(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"));
    let number = |text: String| text.trim().parse().map_err(io::Error::other);
    fs::read_to_string(&path).and_then(number).map_err(|cause| SettingError { path, cause })
}

/// A connection to the kernel's settings of devices.
#[derive(Debug)]
pub struct Devices(Socket);

/// The flag by which a device is up.
const UP: i32 = libc::IFF_UP;
/// The words of a name of a feature (ETH_GSTRING_LEN).
const NAME_WORDS: usize = 32 / 4;

impl Devices {
    /// Opens it.
    pub fn open() -> io::Result<Self> {
        Socket::new(Domain::IPV4, Type::DGRAM, None).map(Devices)
    }

    /// The longest packet of a device.
    pub fn mtu(&self, name: &str) -> io::Result<u32> {
        let request = self.call(name, libc::SIOCGIFMTU, |_| {})?;
        // SAFETY: the kernel has filled in the MTU; any bytes are an int.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        u32::try_from(mtu).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// Whether a device is up.
    pub fn is_up(&self, name: &str) -> io::Result<bool> {
        let request = self.call(name, libc::SIOCGIFFLAGS, |_| {})?;
        // SAFETY: the kernel has filled in the flags; any bytes are a short.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        Ok(i32::from(flags) & UP != 0)
    }

    /// The name of the device that has this number, if there is one.
    pub fn name(&self, index: u32) -> io::Result<Option<String>> {
        const SIOCGIFNAME: libc::Ioctl = 0x8910;
        let index = libc::c_int::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
        let found = self.request(SIOCGIFNAME, |request| request.ifr_ifru.ifru_ifindex = index);
        match found {
            Ok(request) => {
                let bytes = request.ifr_name.iter().map(|byte| byte.to_ne_bytes()[0]);
                let name: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
                Ok(Some(String::from_utf8_lossy(&name).into_owned()))
            }
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names of the features of a device that are on, as `ethtool -k` calls those that have no
    /// other name.
    pub fn features(&self, name: &str) -> io::Result<BTreeSet<String>> {
        const GET_SET_INFO: u32 = 0x37;
        const GET_STRINGS: u32 = 0x1b;
        const GET_FEATURES: u32 = 0x3a;
        const FEATURES: u32 = 4;
        const MOST: u32 = 1024;
        // struct ethtool_sset_info: command, reserved, mask of 64 bits, one number.
        let mut info = [0u32; 5];
        info[0] = GET_SET_INFO;
        info[2..4].copy_from_slice(&words_of(1u64 << FEATURES));
        self.ethtool(name, &mut info)?;
        let count = info[4].min(MOST);
        // struct ethtool_gstrings: command, set, count, names.
        let mut strings = vec![0u32; 3 + count as usize * NAME_WORDS];
        strings[..3].copy_from_slice(&[GET_STRINGS, FEATURES, count]);
        self.ethtool(name, &mut strings)?;
        // struct ethtool_gfeatures: command, count of blocks; of each what is available, requested, active and
        // never changed.
        let blocks = count.div_ceil(32);
        let mut features = vec![0u32; 2 + 4 * blocks as usize];
        features[..2].copy_from_slice(&[GET_FEATURES, blocks]);
        self.ethtool(name, &mut features)?;
        let active: Vec<u32> = features[2..].chunks_exact(4).map(|block| block[2]).collect();
        Ok(switched_on(&strings[3..], &active))
    }

    /// Sends a command of ethtool: numbers, the first of which is the command.
    fn ethtool(&self, name: &str, command: &mut [u32]) -> io::Result<()> {
        const SIOCETHTOOL: libc::Ioctl = 0x8946;
        let data = command.as_mut_ptr().cast();
        self.call(name, SIOCETHTOOL, |request| request.ifr_ifru.ifru_data = data).map(drop)
    }

    /// A request about a device, with what the kernel answers. Of an ethtool command the data must be as long as the
    /// command says, which all in this file are.
    fn call(
        &self,
        name: &str,
        command: libc::Ioctl,
        fill: impl FnOnce(&mut libc::ifreq),
    ) -> io::Result<libc::ifreq> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.request(command, |request| {
            for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
                *to = libc::c_char::from_ne_bytes([from]);
            }
            fill(request);
        })
    }

    fn request(
        &self,
        command: libc::Ioctl,
        fill: impl FnOnce(&mut libc::ifreq),
    ) -> io::Result<libc::ifreq> {
        // SAFETY: zeros are a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        fill(&mut request);
        // SAFETY: these commands read and write an ifreq, which this is; the data of ethtool's command outlives
        // the call and has the room that its head tells.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), command, &raw mut request) };
        if result == 0 { Ok(request) } else { Err(io::Error::last_os_error()) }
    }
}

/// The names of those of which the bit is set.
fn switched_on(names: &[u32], active: &[u32]) -> BTreeSet<String> {
    let is_active =
        |at: usize| active.get(at / 32).is_some_and(|block| block >> (at % 32) & 1 == 1);
    let names = names.chunks_exact(NAME_WORDS).enumerate().filter(|(at, _)| is_active(*at));
    names
        .map(|(_, words)| {
            let bytes = words.iter().flat_map(|word| word.to_ne_bytes());
            let text: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
            String::from_utf8_lossy(&text).into_owned()
        })
        .filter(|name| !name.is_empty())
        .collect()
}

/// As it lies in memory.
fn words_of(number: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = number.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_before_the_colon() {
        let table = "Inter-|   Receive\n face |bytes\n    lo: 1 2\n  eth0:77 8\nveth.1: 0\n";
        assert_eq!(names(table), ["lo", "eth0", "veth.1"]);
        assert!(names("").is_empty());
    }

    #[test]
    fn features_are_named_by_their_bits() {
        let mut names = [0u32; 40 * NAME_WORDS];
        names[0] = u32::from_ne_bytes(*b"rx-a");
        names[33 * NAME_WORDS] = u32::from_ne_bytes(*b"lro\0");
        let on = |active: &[u32]| switched_on(&names, active).into_iter().collect::<Vec<_>>();
        assert_eq!(on(&[1, 2]), ["lro", "rx-a"]);
        assert_eq!(on(&[2, 2]), ["lro"]);
        assert!(on(&[]).is_empty());
    }

    #[test]
    fn a_source_check_is_a_number_or_an_error_with_its_file() {
        assert!(source_check("all").unwrap() <= 2);
        let error = source_check("no-such-dev").unwrap_err();
        assert!(error.is_missing());
        let path = "read /proc/sys/net/ipv4/conf/no-such-dev/rp_filter: ";
        assert!(error.to_string().starts_with(path), "{error}");
    }

    #[test]
    fn the_loopback_device_is_there() {
        assert!(list().unwrap().contains(&"lo".to_owned()));
        let devices = Devices::open().unwrap();
        assert!(devices.mtu("lo").unwrap() >= 1280);
        assert!(devices.features("lo").unwrap().iter().any(|name| name.starts_with("rx-")));
        assert_eq!(devices.name(1).unwrap().as_deref(), Some("lo"));
        assert_eq!(devices.name(0x7fff_fff0).unwrap(), None);
        assert!(devices.name(u32::MAX).is_err());
        assert!(devices.mtu("no-such-dev").is_err() && devices.mtu(&"x".repeat(16)).is_err());
    }
}
