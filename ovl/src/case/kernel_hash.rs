//! One hash in the kernel, in `lb` and in `shm-tool`.

use anyhow::{Context, Result};

use super::{Case, PLAIN, Skip, check};
use crate::flow;
use crate::lab::Lab;
use crate::packet::Extras;
use crate::trace::Trace;

pub const CASES: &[Case] = &[Case {
    name: "kernel-hash",
    about: "nft's jhash, lb and shm-tool agree, with IP options and extension headers too",
    run: all_agree,
    ..PLAIN
}];

fn all_agree(lab: &mut Lab) -> Result<()> {
    lab.start_service()?;
    let table = lab.table_json("show")?;
    let number = |key: &str| table[key].as_u64().with_context(|| format!("read show: no {key}"));
    let router = lab.cluster.router()?;
    let marks = Trace::of_marks(router)?;
    // The rules differ in the hash only: when just these are refused it is the kernel's lack.
    let slots = Trace::of_kernel_slots(router, number("m")?, number("seed")?)
        .map_err(|error| Skip(format!("nft's jhash: {error:#}")))?;
    let flows = flow::list_of_each(150);
    let lookups = lab.lookup(&flows)?;
    for extras in [Extras::None, Extras::Some] {
        marks.clear()?;
        slots.clear()?;
        lab.send_flows(&flows, extras)?;
        let slots = slots.wait_for(flows.len())?;
        let marks = marks.wait_for(flows.len())?;
        for flow in &flows {
            let (slot, mark) = (slots.get(flow).copied(), marks.get(flow).copied());
            let lookup = lookups[flow];
            check(
                slot == Some(lookup.slot) && mark == lookup.mark,
                format!("{flow:?} with extra headers {extras:?} as shm-tool says: {lookup:?}"),
                format!("slot {slot:?} in the kernel, mark {mark:?} by lb"),
            )?;
        }
    }
    Ok(())
}
