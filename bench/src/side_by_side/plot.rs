//! Results as bars, a picture for each case.

use std::path::Path;

use anyhow::{Context, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::results::{CaseResults, Column, Results, Row};
use super::table::grouped;
use crate::report::Spread;

const WIDTH: i32 = 860;
/// Of the names before the bars.
const NAMES: i32 = 190;
/// Of the figures behind the bars.
const FIGURES: i32 = 170;
const TITLE: i32 = 58;
const PANEL_TITLE: i32 = 28;
/// Below a panel.
const GAP: i32 = 12;
const BAR: i32 = 20;
const STEP: i32 = 28;
const MARGIN: i32 = 14;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 40, 40);
const OURS: RGBColor = RGBColor(31, 119, 180);
const THEIRS: RGBColor = RGBColor(170, 176, 184);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws all that have something to show.
pub fn draw(results: &Results, folder: &Path) -> anyhow::Result<()> {
    let context = || format!("write plots to {}", folder.display());
    std::fs::create_dir_all(folder).with_context(context)?;
    for case in &results.cases {
        let panels: Vec<Panel> = case.columns.iter().filter_map(|c| Panel::of(case, c)).collect();
        if !panels.is_empty() {
            let path = folder.join(format!("{}.svg", case.name));
            draw_case(case, &panels, &path)
                .map_err(|error| anyhow!("{error}"))
                .with_context(|| format!("write {}", path.display()))?;
        }
    }
    Ok(())
}

/// One figure of everybody.
struct Panel<'a> {
    column: &'a Column,
    bars: Vec<(&'a Row, Spread)>,
}

impl<'a> Panel<'a> {
    fn of(case: &'a CaseResults, column: &'a Column) -> Option<Self> {
        let bar = |row: &'a Row| Some((row, row.spread(&column.key)?));
        let bars: Vec<_> = case.rows.iter().filter_map(bar).collect();
        (column.plotted && !bars.is_empty()).then_some(Panel { column, bars })
    }

    fn height(&self) -> i32 {
        let bars = i32::try_from(self.bars.len()).unwrap_or(i32::MAX / STEP / 2);
        PANEL_TITLE + STEP * bars + GAP
    }

    /// What the width stands for. An outlier may leave the picture, so that the medians can be told
    /// apart.
    fn widest(&self) -> f64 {
        let most = |of: fn(&Spread) -> f64| {
            self.bars.iter().map(|(_, spread)| of(spread)).fold(0.0, f64::max)
        };
        most(|spread| spread.max).min(2.0 * most(|spread| spread.median)).max(f64::MIN_POSITIVE)
    }
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw_case(case: &CaseResults, panels: &[Panel<'_>], path: &Path) -> Drawn {
    let height = TITLE + panels.iter().map(Panel::height).sum::<i32>() + MARGIN;
    let size = (WIDTH.unsigned_abs(), height.unsigned_abs());
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE)?;
    let title = (FONT, 20).into_font().style(FontStyle::Bold).color(&INK);
    area.draw_text(&case.name, &title, (MARGIN, 12))?;
    let caption = "median of the rounds; line: smallest to largest";
    area.draw_text(caption, &(FONT, 13).into_font().color(&INK), (MARGIN, 36))?;
    let mut top = TITLE;
    for panel in panels {
        draw_panel(&area, panel, top)?;
        top += panel.height();
    }
    area.present()?;
    Ok(())
}

fn draw_panel(area: &Area<'_>, panel: &Panel<'_>, top: i32) -> Drawn {
    let bold = (FONT, 14).into_font().style(FontStyle::Bold).color(&INK);
    area.draw_text(&panel.column.heading, &bold, (MARGIN, top + 4))?;
    let widest = panel.widest();
    let scale = f64::from(WIDTH - NAMES - FIGURES) / widest;
    let x = |figure: f64| NAMES + whole_pixels(figure.min(widest) * scale);
    let label = |side| (FONT, 14).into_font().color(&INK).pos(Pos::new(side, VPos::Center));
    for (place, (row, spread)) in (0i32..).zip(&panel.bars) {
        let upper = top + PANEL_TITLE + place * STEP;
        let middle = upper + BAR / 2;
        let colour = if is_ours(&row.name) { OURS } else { THEIRS };
        area.draw_text(&row.title(), &label(HPos::Right), (NAMES - 8, middle))?;
        let bar = [(NAMES, upper), (x(spread.median), upper + BAR)];
        area.draw(&Rectangle::new(bar, colour.filled()))?;
        if spread.min < spread.max {
            let (left, right) = (x(spread.min), x(spread.max));
            area.draw(&PathElement::new([(left, middle), (right, middle)], INK.stroke_width(1)))?;
            for end in [left, right] {
                let tick = [(end, middle - 4), (end, middle + 4)];
                area.draw(&PathElement::new(tick, INK.stroke_width(1)))?;
            }
        }
        let mut figure = grouped(spread.median, panel.column.decimals);
        if spread.max > widest {
            figure += &format!("  (line to {})", grouped(spread.max, panel.column.decimals));
        }
        area.draw_text(&figure, &label(HPos::Left), (x(spread.max) + 8, middle))?;
    }
    Ok(())
}

fn is_ours(name: &str) -> bool {
    matches!(name, "lb" | "ctraffic" | "kahttp" | "mconnect")
}

#[expect(clippy::cast_possible_truncation, reason = "it is clamped to the picture")]
fn whole_pixels(length: f64) -> i32 {
    length.clamp(0.0, f64::from(WIDTH)).round() as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::side_by_side::results::tests::case;

    #[test]
    fn pixels_are_rounded() {
        assert_eq!(whole_pixels(0.4), 0);
        assert_eq!(whole_pixels(99.6), 100);
        assert_eq!(whole_pixels(-3.0), 0);
        assert_eq!(whole_pixels(f64::NAN), 0);
        assert_eq!(whole_pixels(f64::INFINITY), WIDTH);
    }

    #[test]
    fn a_picture_names_everybody_with_the_figure() {
        let folder = tempfile::tempdir().unwrap();
        let results = Results { conditions: String::new(), cases: vec![case()] };
        draw(&results, folder.path()).unwrap();
        let picture = std::fs::read_to_string(folder.path().join("flood.svg")).unwrap();
        for text in ["flood", "µs/packet", "lb, a", "peer, b", "3.50"] {
            assert!(picture.contains(text), "{text}");
        }
    }
}
