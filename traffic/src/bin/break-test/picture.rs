//! The breaks over time: a line for each probe, with what was done in the middle.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::{Report, Row};

const WIDTH: i32 = 900;
/// Of the names before the lines, and of the figures behind them.
const NAMES: i32 = 170;
const FIGURES: i32 = 110;
const TOP: i32 = 70;
const STEP: i32 = 26;
const BOTTOM: i32 = 44;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 40, 40);
const WELL: RGBColor = RGBColor(44, 140, 80);
const BROKEN: RGBColor = RGBColor(204, 51, 51);
const UNKNOWN: RGBColor = RGBColor(200, 200, 200);
const DURING: RGBColor = RGBColor(255, 232, 180);

type Drawn = Result<(), Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

pub fn write(report: &Report, file: &Path) -> anyhow::Result<()> {
    let picture = svg(report).map_err(|error| anyhow!("draw plot: {error}"))?;
    fs::write(file, picture).with_context(|| format!("write plot {}", file.display()))
}

fn svg(report: &Report) -> Result<String, Box<dyn std::error::Error>> {
    let mut picture = String::new();
    let height = TOP + STEP * i32::try_from(report.rows.len())? + BOTTOM;
    {
        let size = (WIDTH.unsigned_abs(), height.unsigned_abs());
        let area = SVGBackend::with_string(&mut picture, size).into_drawing_area();
        area.fill(&WHITE)?;
        draw(report, &area, height)?;
        area.present()?;
    }
    Ok(picture)
}

fn draw(report: &Report, area: &Area<'_>, height: i32) -> Drawn {
    let text =
        |horizontal| (FONT, 14).into_font().color(&INK).pos(Pos::new(horizontal, VPos::Center));
    let bold = (FONT, 17).into_font().style(FontStyle::Bold).color(&INK);
    area.draw_text("Breaks over time", &bold, (14, 12))?;
    let x = |time: Duration| {
        let part = time.as_secs_f64() / report.time.as_secs_f64();
        NAMES + pixels(part * f64::from(WIDTH - NAMES - FIGURES))
    };
    let floor = height - BOTTOM;
    if let Some(disturbance) = &report.disturbance {
        let (left, right) = (x(disturbance.from), x(disturbance.to).max(x(disturbance.from) + 2));
        area.draw(&Rectangle::new([(left, TOP - 12), (right, floor)], DURING.filled()))?;
        let name: String = disturbance.command.chars().take(90).collect();
        area.draw_text(&name, &text(HPos::Center), ((left + right) / 2, TOP - 24))?;
    }
    for (place, row) in (0i32..).zip(&report.rows) {
        let y = TOP + STEP * place + STEP / 2;
        let name = format!("{} {}", row.path, row.probe.name());
        area.draw_text(&name, &text(HPos::Right), (NAMES - 10, y))?;
        let whole = [(NAMES, y - 7), (x(report.time), y + 7)];
        let colour = if row.outcome.unavailable.is_some() { UNKNOWN } else { WELL };
        area.draw(&Rectangle::new(whole, colour.filled()))?;
        for one in &row.outcome.breaks {
            // The shortest is seen, too.
            let (left, right) = (x(one.from), x(one.to).max(x(one.from) + 2));
            area.draw(&Rectangle::new([(left, y - 9), (right, y + 9)], BROKEN.filled()))?;
        }
        area.draw_text(&figure(row), &text(HPos::Left), (WIDTH - FIGURES + 10, y))?;
    }
    let step = (report.time.as_secs() / 10).max(1);
    for second in (0..=report.time.as_secs()).step_by(usize::try_from(step)?) {
        let left = x(Duration::from_secs(second));
        area.draw(&PathElement::new([(left, floor), (left, floor + 5)], INK.stroke_width(1)))?;
        area.draw_text(&second.to_string(), &text(HPos::Center), (left, floor + 14))?;
    }
    let middle = (NAMES + WIDTH - FIGURES) / 2;
    area.draw_text("time [s]", &text(HPos::Center), (middle, floor + 32))?;
    Ok(())
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
    length.clamp(0.0, f64::from(WIDTH)).round() as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn a_picture_has_a_line_for_each_probe() {
        let picture = svg(&report()).unwrap();
        for part in ["vip icmp", "320 ms", "vip tcp", "no break", "vip udp", "not measured", "true"]
        {
            assert!(picture.contains(part), "{part}: {picture}");
        }
    }
}
