//! Sending packets, and hearing the answers.

use std::cmp::Reverse;
use std::io;
use std::time::{Duration, Instant};

use super::connection::{Heard, Stage};
use super::flight::Answer;
use super::{Client, Settings};

/// How long an answer is waited for.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

impl Client<'_> {
    /// Sends the packet that is due, if the window allows it.
    pub fn send(&mut self, number: u64, now: Instant) {
        let Settings { window, udp, .. } = *self.settings;
        let index = usize::try_from(number).expect("the number of a slot");
        let slot = &mut self.slots[index];
        let Some(connection) = &mut slot.connection else {
            return;
        };
        let is_free = connection.flight.len() < window && connection.can_send();
        let Stage::Open { pace, is_held_back } = &mut connection.stage else {
            return;
        };
        *is_held_back = !is_free;
        if !is_free {
            return;
        }
        let skipped = pace.take(now);
        let due = pace.due();
        slot.record.dropped += skipped;
        slot.record.sent += 1;
        self.totals.dropped += skipped;
        self.totals.sent += 1;
        let sent = match udp {
            true => {
                let (packet, sent) = connection.send_datagram(&mut self.packet, now);
                if let Err(error) = sent {
                    self.note(&format!("send to {}: {error}", self.settings.target));
                }
                Ok(packet)
            }
            false => connection.send_on_stream(&mut self.packet, now),
        };
        match sent {
            Ok(packet) => {
                self.answer_limits.push_back((now + ANSWER_LIMIT, number, packet));
                self.wakes.push(Reverse((due, number)));
                self.watch(number, now);
            }
            Err(error) => self.fail(number, &format!("send: {error}"), now),
        }
    }

    /// Something happened on a socket.
    pub fn advance(&mut self, number: u64) {
        let now = Instant::now();
        let packet_size = self.settings.packet_size;
        let index = usize::try_from(number).expect("the number of a slot");
        let Some(connection) = &mut self.slots[index].connection else {
            return;
        };
        if matches!(connection.stage, Stage::Connecting) {
            return match connection.is_connected() {
                Ok(true) => self.connected(number, now),
                Ok(false) => {}
                Err(error) => self.retry_connect(number, &error, now),
            };
        }
        let mut heard = std::mem::take(&mut self.heard);
        let result = connection
            .send_rest(&mut self.packet)
            .and_then(|()| connection.hear(&mut self.buffer, packet_size, now, &mut heard));
        for what in heard.drain(..) {
            self.count(index, what);
        }
        self.heard = heard;
        match result {
            Ok(()) => {
                self.send_held_back(number, now);
                self.watch(number, now);
            }
            Err(error) if self.settings.udp => self.refused(number, &error, now),
            Err(error) => self.fail(number, &format!("read: {error}"), now),
        }
    }

    pub fn count(&mut self, index: usize, heard: Heard) {
        let record = &mut self.slots[index].record;
        let totals = &mut self.totals;
        match heard {
            Heard::Answer(Answer::InTime { after, is_reordered }) => {
                record.received += 1;
                totals.received += 1;
                totals.reordered += u64::from(is_reordered);
                self.reply_times.record(after);
                self.progress.record(after);
            }
            Heard::Answer(Answer::Late { is_reordered }) => {
                record.received += 1;
                totals.received += 1;
                totals.late += 1;
                totals.reordered += u64::from(is_reordered);
            }
            Heard::Answer(Answer::Duplicate) => totals.duplicates += 1,
            Heard::Answer(Answer::Unknown) | Heard::Invalid => totals.invalid += 1,
            Heard::Host(name) => totals.moves += u64::from(record.answered_by(name)),
        }
    }

    /// A packet that had to wait may go now.
    pub fn send_held_back(&mut self, number: u64, now: Instant) {
        if now < self.deadline
            && let Some(connection) = &self.slot(number).connection
            && matches!(connection.stage, Stage::Open { is_held_back: true, .. })
        {
            self.send(number, now);
        }
    }

    /// A router or the host said that a datagram did not arrive. Its answer
    /// need not be waited for.
    pub fn refused(&mut self, number: u64, error: &io::Error, now: Instant) {
        self.note(&format!("read from {}: {error}", self.settings.target));
        let connection = self.slot(number).connection.as_ref();
        match connection.and_then(|connection| connection.flight.oldest()) {
            Some(packet) => self.give_up(number, packet, now),
            None => self.send_held_back(number, now),
        }
    }

    /// Waits no longer for the answer to a datagram.
    pub fn give_up(&mut self, number: u64, packet: u64, now: Instant) {
        if let Some(connection) = &mut self.slot(number).connection {
            connection.flight.give_up(packet);
        }
        self.send_held_back(number, now);
    }
}
