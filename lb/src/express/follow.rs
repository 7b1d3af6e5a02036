//! Where marks lead: what the kernel's routing says, asked again when something changed.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Instant;

use lb_core::fast::Family;
use lb_sys::capability::Capability;
use lb_sys::privilege;
use lb_sys::route::{Device, NextHop, NoHop, Query, Routes, Which};
use thiserror::Error;

use super::{FAMILIES, Ways};
use crate::cidr::Cidr;

/// How much of the time may be spent with questions, when routes change all the time.
const SHARE: u32 = 10;

/// Follows the kernel's routing.
#[derive(Debug)]
pub struct Express {
    routes: Routes,
    devices: Vec<String>,
    vips: Vec<IpAddr>,
    ways: Ways,
    /// The marks that were asked for, and what came back.
    marks: BTreeSet<u32>,
    answers: Answers,
    was_asked: bool,
    /// Whether something changed since all of them were asked for.
    is_stale: bool,
    /// Before this they are not asked for again.
    ask_at: Instant,
    /// What was told last.
    lack: Option<String>,
}

impl Express {
    /// Opens it; nothing is asked yet.
    pub fn open(devices: Vec<String>, vips: &[Cidr], now: Instant) -> io::Result<Self> {
        // Questions need no rights, and what was opened without them can do no more than ask.
        let routes = privilege::without(Capability::NetAdmin, Routes::open)??;
        Ok(Express {
            routes,
            devices,
            vips: vips.iter().map(Cidr::first).collect(),
            ways: Ways::default(),
            marks: BTreeSet::new(),
            answers: Answers::default(),
            was_asked: false,
            is_stale: true,
            ask_at: now,
            lack: None,
        })
    }

    /// What was found last.
    pub fn ways(&self) -> &Ways {
        &self.ways
    }

    /// Whether there may be other ways now.
    pub fn is_behind(&mut self, now: Instant) -> io::Result<bool> {
        self.is_stale |= self.routes.changed()?;
        Ok(self.is_stale && now >= self.ask_at)
    }

    /// Finds the ways of these marks: asks for new ones, and if routes are new for all, unless that was just
    /// done. Says whether there are others now.
    pub fn find(&mut self, marks: &BTreeSet<u32>, now: Instant) -> io::Result<bool> {
        self.is_stale |= self.routes.changed()?;
        if !self.is_stale && self.marks == *marks {
            return Ok(false);
        }
        let asks_for_all = self.is_stale && now >= self.ask_at;
        if asks_for_all {
            self.answers = Answers::default();
        }
        // This comes first: the kernel answers after it is done with a device that went down, routes included.
        let mut inputs = Vec::new();
        for name in &self.devices {
            let device = self.routes.device(Which::Name(name))?;
            inputs.extend(device.map(|device| (device.index, name.as_str())));
        }
        let (routes, vips) = (&mut self.routes, &self.vips[..]);
        let mut asking = Asking { routes, inputs: &inputs, vips, outputs: BTreeMap::new() };
        self.answers.complete(marks, |family, mark| asking.answer(family, mark))?;
        let devices = inputs.iter().map(|(_, name)| (*name).to_owned()).collect();
        let ways = self.answers.ways(devices);
        let differs = !self.was_asked || ways != self.ways;
        self.ways = ways;
        self.marks.clone_from(marks);
        self.was_asked = true;
        self.is_stale &= !asks_for_all;
        self.ask_at = self.ask_at.max(now + now.elapsed() * SHARE);
        Ok(differs)
    }

    /// What the plane cannot do, if that is not what was told last.
    pub fn new_lack(&mut self) -> Option<String> {
        let lack = if self.ways.devices.is_empty() {
            Some("no express plane for the moment: none of the devices is there".to_owned())
        } else {
            let is_used = |is_v6| self.vips.iter().any(|vip| vip.is_ipv6() == is_v6);
            self.answers.lack([is_used(false), is_used(true)])
        };
        let is_new = lack != self.lack;
        self.lack.clone_from(&lack);
        lack.filter(|_| is_new)
    }
}

/// What routing says of each mark, by version of IP.
#[derive(Debug, Default)]
struct Answers([BTreeMap<u32, Result<Hop, NoWay>>; 2]);

/// A next hop, and the longest packet that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hop {
    next: NextHop,
    mtu: u32,
}

/// Why a mark has no next hop.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
enum NoWay {
    #[error("to {to} by {device}: {why}")]
    Route { to: IpAddr, device: String, why: NoHop },
    #[error("its ways in lead to different next hops")]
    Differ,
    #[error("the device of its next hop is gone")]
    Gone,
    #[error("there is no way in")]
    NowhereIn,
}

impl Answers {
    /// Asks for those of the marks that are not known, and forgets others.
    fn complete<E>(
        &mut self,
        marks: &BTreeSet<u32>,
        mut ask: impl FnMut(Family, u32) -> Result<Result<Hop, NoWay>, E>,
    ) -> Result<(), E> {
        for family in FAMILIES {
            let known = &mut self.0[family as usize];
            known.retain(|mark, _| marks.contains(mark));
            for &mark in marks {
                if let Entry::Vacant(place) = known.entry(mark) {
                    place.insert(ask(family, mark)?);
                }
            }
        }
        Ok(())
    }

    fn ways(&self, devices: Vec<String>) -> Ways {
        let found = self.0.each_ref().map(|answers| {
            let hops =
                answers.iter().filter_map(|(mark, answer)| Some((*mark, *answer.as_ref().ok()?)));
            hops.collect::<BTreeMap<_, _>>()
        });
        let mtu = found.iter().flat_map(BTreeMap::values).map(|hop| hop.mtu).min();
        let hops = found.map(|hops| hops.into_iter().map(|(mark, hop)| (mark, hop.next)).collect());
        Ways { devices, hops, mtu: mtu.unwrap_or(u32::MAX) }
    }

    /// How many marks have no next hop in a version of IP that is used, and why the first of them has none.
    fn lack(&self, used: [bool; 2]) -> Option<String> {
        let mut without = BTreeMap::new();
        for (answers, _) in self.0.iter().zip(used).filter(|(_, used)| *used) {
            for (mark, answer) in answers {
                if let Err(why) = answer {
                    without.entry(*mark).or_insert(why);
                }
            }
        }
        let (mark, why) = without.first_key_value()?;
        let (many, all) = (without.len(), self.0[0].len());
        Some(format!(
            "{many} of {all} targets have no single next hop: the fast plane takes their packets; of mark {mark}: {why}"
        ))
    }
}

/// One round of questions.
struct Asking<'a> {
    routes: &'a mut Routes,
    /// Devices by which packets come in.
    inputs: &'a [(u32, &'a str)],
    vips: &'a [IpAddr],
    /// Those by which they leave. Each is asked for once: it takes a lock that many want.
    outputs: BTreeMap<u32, Option<Device>>,
}

impl Asking<'_> {
    fn answer(&mut self, family: Family, mark: u32) -> io::Result<Result<Hop, NoWay>> {
        let next = match self.common_hop(family, mark)? {
            Ok(next) => next,
            Err(why) => return Ok(Err(why)),
        };
        let device = match self.outputs.entry(next.device) {
            Entry::Occupied(device) => *device.get(),
            Entry::Vacant(place) => *place.insert(self.routes.device(Which::Index(next.device))?),
        };
        Ok(device.ok_or(NoWay::Gone).map(|device| {
            let of_device = if family == Family::V6 { device.mtu6 } else { device.mtu };
            Hop { next, mtu: of_device.min(next.mtu.unwrap_or(u32::MAX)) }
        }))
    }

    /// The next hop of a mark, if it is the same for all ways in.
    fn common_hop(&mut self, family: Family, mark: u32) -> io::Result<Result<NextHop, NoWay>> {
        let mut common = None;
        let vips = self.vips.iter().filter(|vip| vip.is_ipv6() == (family == Family::V6));
        for (&(input, device), &to) in
            self.inputs.iter().flat_map(|input| vips.clone().map(move |to| (input, to)))
        {
            let hop = match self.routes.next_hop(&Query { to, mark, input })? {
                Ok(hop) => hop,
                Err(why) => return Ok(Err(NoWay::Route { to, device: device.into(), why })),
            };
            if common.is_some_and(|common| common != hop) {
                return Ok(Err(NoWay::Differ));
            }
            common = Some(hop);
        }
        Ok(common.ok_or(NoWay::NowhereIn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(mark: u32, mtu: u32) -> Hop {
        let address = IpAddr::from([192, 168, 1, u8::try_from(mark).unwrap()]);
        Hop { next: NextHop { device: 3, address, mtu: None }, mtu }
    }

    /// The marks of which routing is asked, in both versions of IP.
    fn asked(answers: &mut Answers, marks: &[u32]) -> Vec<(Family, u32)> {
        let mut asked = Vec::new();
        let marks = marks.iter().copied().collect();
        let answer = |family, mark| {
            asked.push((family, mark));
            Ok::<_, io::Error>(match (family, mark) {
                (Family::V4, 4..) => Err(NoWay::Differ),
                _ => Ok(hop(mark, 1500 - mark)),
            })
        };
        answers.complete(&marks, answer).unwrap();
        asked
    }

    #[test]
    fn only_new_marks_are_asked_for() {
        use Family::{V4, V6};
        let mut answers = Answers::default();
        assert_eq!(asked(&mut answers, &[1, 2]), [(V4, 1), (V4, 2), (V6, 1), (V6, 2)]);
        assert_eq!(asked(&mut answers, &[1, 2]), []);
        assert_eq!(asked(&mut answers, &[2, 4]), [(V4, 4), (V6, 4)]);
        assert_eq!(asked(&mut answers, &[1, 2]), [(V4, 1), (V6, 1)], "1 was forgotten");
        let marks = |answers: &Answers| {
            answers.0.each_ref().map(|of| of.keys().copied().collect::<Vec<_>>())
        };
        assert_eq!(marks(&answers), [vec![1, 2], vec![1, 2]]);
    }

    #[test]
    fn a_question_that_fails_is_asked_again() {
        let mut answers = Answers::default();
        let marks = [1, 2].into();
        let fails = |_: Family, mark: u32| if mark == 1 { Ok(Ok(hop(1, 1500))) } else { Err(mark) };
        assert_eq!(answers.complete(&marks, fails), Err(2));
        let (first, second) = (Family::V4, Family::V6);
        assert_eq!(asked(&mut answers, &[1, 2]), [(first, 2), (second, 1), (second, 2)]);
    }

    #[test]
    fn the_shortest_limit_counts_and_goes_with_its_mark() {
        let mut answers = Answers::default();
        asked(&mut answers, &[1, 2, 3, 9]);
        let ways = |answers: &Answers| answers.ways(vec!["eth2".into()]);
        assert_eq!(ways(&answers).mtu, 1500 - 9);
        assert_eq!(ways(&answers).hops.each_ref().map(BTreeMap::len), [3, 4]);
        asked(&mut answers, &[1]);
        assert_eq!(ways(&answers).mtu, 1499);
        assert_eq!(ways(&answers).hops[0][&1], hop(1, 0).next);
        assert_eq!(ways(&Answers::default()).mtu, u32::MAX);
    }

    #[test]
    fn marks_without_a_next_hop_are_told_with_the_reason_of_the_first() {
        let mut answers = Answers::default();
        asked(&mut answers, &[1, 2, 5, 9]);
        let lack = "2 of 4 targets have no single next hop: the fast plane takes their packets; of mark 5: its ways in \
                    lead to different next hops";
        assert_eq!(answers.lack([true, true]).unwrap(), lack);
        assert_eq!(answers.lack([false, true]), None);
        let why =
            NoWay::Route { to: [10, 0, 0, 0].into(), device: "eth2".into(), why: NoHop::Several };
        assert_eq!(why.to_string(), "to 10.0.0.0 by eth2: the route has several next hops");
    }
}
