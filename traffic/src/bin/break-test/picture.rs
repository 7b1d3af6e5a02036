//! The breaks over time: a line for each probe, with what was done in the middle.

use std::time::Duration;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use traffic::picture::{Area, Drawing, Drawn, FONT, GREEN as WELL, INK, RED as BROKEN, room_for};

use crate::report::{Report, Row};

/// Of the lines.
const LINES: i32 = 620;
/// Of the names before them, at least, and of the figures behind them.
const NAMES: i32 = 170;
const FIGURES: i32 = 110;
const TOP: i32 = 70;
const STEP: i32 = 26;
const BOTTOM: i32 = 44;
const UNKNOWN: RGBColor = RGBColor(200, 200, 200);
const DURING: RGBColor = RGBColor(255, 232, 180);

/// What is drawn of a report.
pub struct TimeLine<'a>(pub &'a Report);

impl TimeLine<'_> {
    /// Where the lines begin.
    fn left(&self) -> i32 {
        let names = self.0.rows.iter().map(|row| room_for(&name(row)) + 2 * 10);
        names.fold(NAMES, i32::max)
    }

    /// Where they end.
    fn floor(&self) -> i32 {
        let rows = i32::try_from(self.0.rows.len()).unwrap_or(i32::MAX);
        TOP.saturating_add(STEP.saturating_mul(rows)).min(1 << 15)
    }

    fn x(&self, time: Duration) -> i32 {
        let part = time.as_secs_f64() / self.0.time.as_secs_f64();
        self.left() + pixels(part * f64::from(LINES))
    }
}

impl Drawing for TimeLine<'_> {
    fn size(&self) -> (u32, u32) {
        let width = self.left() + LINES + FIGURES;
        (width.unsigned_abs(), (self.floor() + BOTTOM).unsigned_abs())
    }

    fn draw<B: DrawingBackend<ErrorType: 'static>>(&self, area: &Area<B>) -> Drawn {
        let Self(report) = *self;
        let text =
            |horizontal| (FONT, 14).into_font().color(&INK).pos(Pos::new(horizontal, VPos::Center));
        let bold = (FONT, 17).into_font().style(FontStyle::Bold).color(&INK);
        area.draw_text("Breaks over time", &bold, (14, 12))?;
        let (left, floor) = (self.left(), self.floor());
        if let Some(disturbance) = &report.disturbance {
            let (from, to) = (self.x(disturbance.from), self.x(disturbance.to));
            let to = to.max(from + 2);
            area.draw(&Rectangle::new([(from, TOP - 12), (to, floor)], DURING.filled()))?;
            let title = title(&disturbance.command);
            area.draw_text(&title, &text(HPos::Center), ((from + to) / 2, TOP - 24))?;
        }
        for (place, row) in (0i32..).zip(&report.rows) {
            let y = TOP + STEP * place + STEP / 2;
            area.draw_text(&name(row), &text(HPos::Right), (left - 10, y))?;
            let whole = [(left, y - 7), (left + LINES, y + 7)];
            let colour = if row.outcome.unavailable.is_some() { UNKNOWN } else { WELL };
            area.draw(&Rectangle::new(whole, colour.filled()))?;
            for one in &row.outcome.breaks {
                // The shortest is seen, too.
                let (from, to) = (self.x(one.from), self.x(one.to).max(self.x(one.from) + 2));
                area.draw(&Rectangle::new([(from, y - 9), (to, y + 9)], BROKEN.filled()))?;
            }
            area.draw_text(&figure(row), &text(HPos::Left), (left + LINES + 10, y))?;
        }
        let step = (report.time.as_secs() / 10).max(1);
        for second in (0..=report.time.as_secs()).step_by(usize::try_from(step)?) {
            let x = self.x(Duration::from_secs(second));
            area.draw(&PathElement::new([(x, floor), (x, floor + 5)], INK.stroke_width(1)))?;
            area.draw_text(&second.to_string(), &text(HPos::Center), (x, floor + 14))?;
        }
        area.draw_text("time [s]", &text(HPos::Center), (left + LINES / 2, floor + 32))?;
        Ok(())
    }
}

/// As much of a command as there is room for.
fn title(command: &str) -> String {
    const LENGTH: usize = 80;
    if command.chars().count() <= LENGTH {
        return command.to_owned();
    }
    command.chars().take(LENGTH - 3).chain("...".chars()).collect()
}

fn name(row: &Row) -> String {
    format!("{} {}", row.path, row.probe.name())
}

fn figure(row: &Row) -> String {
    match (&row.outcome.unavailable, row.outcome.longest()) {
        (Some(_), _) => "not measured".to_owned(),
        (None, Some(longest)) => format!("{:.0} ms", longest.length().as_secs_f64() * 1e3),
        (None, None) => "no break".to_owned(),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "it is clamped to the picture")]
fn pixels(length: f64) -> i32 {
    length.clamp(0.0, f64::from(LINES)).round() as i32
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use traffic::picture;

    use super::*;
    use crate::report::tests::report;

    #[test]
    fn a_picture_has_a_line_for_each_probe() {
        let picture = picture::svg(&TimeLine(&report())).unwrap();
        for part in ["vip icmp", "320 ms", "vip tcp", "no break", "vip udp", "not measured", "true"]
        {
            assert!(picture.contains(part), "{part}: {picture}");
        }
    }

    #[test]
    fn pixels_show_what_happened_when() {
        let file = picture::png(&TimeLine(&report())).unwrap();
        let mut reader = png::Decoder::new(Cursor::new(file)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (900, 218));
        // 10 s are 620 pixels.
        let at = |row: usize, tenths: usize| {
            let (x, y) = (170 + tenths * 620 / 100, 70 + 26 * row + 13);
            let place = (y * 900 + x) * 3;
            (pixels[place], pixels[place + 1], pixels[place + 2])
        };
        let [well, broken, unknown] = [WELL, BROKEN, UNKNOWN].map(|colour| colour.rgb());
        // The break from 5.01 s to 5.33 s.
        assert_eq!([at(0, 10), at(0, 52), at(0, 60)], [well, broken, well]);
        assert_eq!([at(1, 10), at(1, 52), at(1, 60)], [well; 3]);
        assert_eq!([at(2, 10), at(2, 52)], [unknown; 2]);
    }

    #[test]
    fn a_long_command_is_seen_to_be_cut() {
        assert_eq!(title("ip link set eth1 down"), "ip link set eth1 down");
        assert_eq!(title(&"x".repeat(80)), "x".repeat(80));
        assert_eq!(title(&"é".repeat(81)), "é".repeat(77) + "...");
    }

    #[test]
    fn long_names_make_it_wider() {
        let mut long = report();
        long.rows[1].path = "2001:db8:1234:5678:9abc:def0:1234:5678".to_owned();
        assert_eq!(TimeLine(&long).size(), (20 + 9 * 42 + 620 + 110, 218));
    }
}
