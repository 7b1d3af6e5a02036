//! Drawing into pixels. The letters are data of this program, so that a picture
//! looks the same everywhere and needs no font that may not be there.

use std::convert::Infallible;

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind,
    FontStyle,
};

/// Three bytes for each pixel, row by row.
pub struct Raster<'a> {
    width: u32,
    height: u32,
    pixels: &'a mut Vec<u8>,
}

type Done = Result<(), DrawingErrorKind<Infallible>>;

/// All letters have this height, and one width.
const LETTER_HEIGHT: RasterHeight = RasterHeight::Size16;
const HEIGHT: i32 = 16;
/// In the place of a letter that there is not.
const UNKNOWN: char = '?';

impl<'a> Raster<'a> {
    /// Black at first. The pixels are there once this is dropped.
    pub fn upon(pixels: &'a mut Vec<u8>, (width, height): (u32, u32)) -> Self {
        let bytes = usize::try_from(u64::from(width) * u64::from(height) * 3);
        pixels.resize(bytes.expect("a picture that fits into memory"), 0);
        Self { width, height, pixels }
    }

    /// Covers a part of a pixel with a colour, from 0 to 1. What is outside the
    /// picture is nothing.
    fn cover(&mut self, (x, y): BackendCoord, colour: BackendColor, part: f64) {
        let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else {
            return;
        };
        if x >= self.width || y >= self.height {
            return;
        }
        let place = (u64::from(y) * u64::from(self.width) + u64::from(x)) * 3;
        let place = usize::try_from(place).expect("within the picture");
        let (red, green, blue) = colour.rgb;
        for (old, new) in self.pixels[place..place + 3].iter_mut().zip([red, green, blue]) {
            *old = mixed(*old, new, part * colour.alpha);
        }
    }

    /// All pixels that are nearer to a line than half its width; those at its
    /// edge in part.
    fn stroke(&mut self, from: BackendCoord, to: BackendCoord, colour: BackendColor, width: u32) {
        let radius = f64::from(width) / 2.0;
        let reach = width.cast_signed() / 2 + 1;
        let columns = within(from.0.min(to.0) - reach, from.0.max(to.0) + reach, self.width);
        let rows = within(from.1.min(to.1) - reach, from.1.max(to.1) + reach, self.height);
        for y in rows {
            for x in columns.clone() {
                let part = (radius + 0.5 - distance((x, y), from, to)).clamp(0.0, 1.0);
                if part > 0.0 {
                    self.cover((x, y), colour, part);
                }
            }
        }
    }
}

impl DrawingBackend for Raster<'_> {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    fn ensure_prepared(&mut self) -> Done {
        Ok(())
    }

    fn present(&mut self) -> Done {
        Ok(())
    }

    fn draw_pixel(&mut self, point: BackendCoord, colour: BackendColor) -> Done {
        self.cover(point, colour, 1.0);
        Ok(())
    }

    fn draw_line<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
    ) -> Done {
        self.stroke(from, to, style.color(), style.stroke_width());
        Ok(())
    }

    /// Line by line: curves that go up and down within a pixel would make a
    /// polygon that crosses itself.
    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        path: I,
        style: &S,
    ) -> Done {
        let mut before = None;
        for point in path {
            if let Some(before) = before
                && before != point
            {
                self.stroke(before, point, style.color(), style.stroke_width());
            }
            before = Some(point);
        }
        Ok(())
    }

    fn draw_text<S: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &S,
        (x, y): BackendCoord,
    ) -> Done {
        let (weight, turn) = (weight(style), style.transform());
        let width = width_of(text, weight);
        let left = match style.anchor().h_pos {
            HPos::Left => 0,
            HPos::Right => -width,
            HPos::Center => -width / 2,
        };
        let top = match style.anchor().v_pos {
            VPos::Top => 0,
            VPos::Center => -HEIGHT / 2,
            VPos::Bottom => -HEIGHT,
        };
        for (letter, character) in (0i32..).zip(text.chars()) {
            let left = left + letter * letter_width(weight);
            let known = get_raster(character, weight, LETTER_HEIGHT);
            let Some(letter) = known.or_else(|| get_raster(UNKNOWN, weight, LETTER_HEIGHT)) else {
                continue;
            };
            for (row, pixels) in (0i32..).zip(letter.raster()) {
                for (column, &part) in (0i32..).zip(pixels.iter()) {
                    let (dx, dy) = turn.transform(left + column, top + row);
                    self.cover((x + dx, y + dy), style.color(), f64::from(part) / 255.0);
                }
            }
        }
        Ok(())
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        style: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<Infallible>> {
        Ok((width_of(text, weight(style)).unsigned_abs(), HEIGHT.unsigned_abs()))
    }
}

fn weight<S: BackendTextStyle>(style: &S) -> FontWeight {
    match style.style() {
        FontStyle::Bold => FontWeight::Bold,
        FontStyle::Normal | FontStyle::Italic | FontStyle::Oblique => FontWeight::Regular,
    }
}

fn letter_width(weight: FontWeight) -> i32 {
    i32::try_from(get_raster_width(weight, LETTER_HEIGHT)).expect("a few pixels")
}

fn width_of(text: &str, weight: FontWeight) -> i32 {
    let letters = i32::try_from(text.chars().count()).unwrap_or(i32::MAX);
    letters.saturating_mul(letter_width(weight))
}

/// What of a range is inside the picture.
fn within(first: i32, last: i32, size: u32) -> std::ops::RangeInclusive<i32> {
    first.max(0)..=last.min(size.cast_signed() - 1)
}

fn distance(point: BackendCoord, from: BackendCoord, to: BackendCoord) -> f64 {
    let float = |(x, y): BackendCoord| (f64::from(x), f64::from(y));
    let ((px, py), (ax, ay), (bx, by)) = (float(point), float(from), float(to));
    let (dx, dy) = (bx - ax, by - ay);
    let length = dx * dx + dy * dy;
    // How far along the line the nearest place is; a line may be a point.
    let along = match length > 0.0 {
        true => (((px - ax) * dx + (py - ay) * dy) / length).clamp(0.0, 1.0),
        false => 0.0,
    };
    (ax + along * dx - px).hypot(ay + along * dy - py)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between two bytes there are only bytes"
)]
fn mixed(old: u8, new: u8, part: f64) -> u8 {
    let (old, new) = (f64::from(old), f64::from(new));
    (old + (new - old) * part.clamp(0.0, 1.0)).round() as u8
}

#[cfg(test)]
mod tests {
    use plotters::prelude::*;
    use plotters::style::text_anchor::Pos;

    use super::*;

    const INK: [u8; 3] = [0, 0, 0];
    const PAPER: [u8; 3] = [255, 255, 255];

    /// A drawing upon white, and its pixel at a place.
    fn drawn(draw: impl FnOnce(&mut Raster<'_>)) -> impl Fn(usize, usize) -> [u8; 3] {
        let mut pixels = Vec::new();
        let mut raster = Raster::upon(&mut pixels, (40, 40));
        raster.draw_rect((0, 0), (39, 39), &WHITE.filled(), true).unwrap();
        draw(&mut raster);
        move |x, y| {
            let place = (y * 40 + x) * 3;
            pixels[place..place + 3].try_into().unwrap()
        }
    }

    #[test]
    fn straight_lines_are_sharp() {
        let at = drawn(|raster| {
            raster.draw_line((5, 3), (5, 30), &BLACK).unwrap();
            raster.draw_line((10, 20), (30, 20), &Color::stroke_width(&BLACK, 3)).unwrap();
        });
        assert_eq!([at(4, 10), at(5, 10), at(6, 10)], [PAPER, INK, PAPER]);
        assert_eq!([at(5, 1), at(5, 3), at(5, 30), at(5, 32)], [PAPER, INK, INK, PAPER]);
        assert_eq!([18, 19, 20, 21, 22].map(|y| at(20, y)), [PAPER, INK, INK, INK, PAPER]);
    }

    #[test]
    fn slanted_lines_have_soft_edges() {
        let at = drawn(|raster| raster.draw_path([(0, 0), (30, 15)], &BLACK).unwrap());
        assert_eq!(at(10, 5), INK);
        let beside = at(11, 5)[0];
        assert!((1..255).contains(&beside), "{beside}");
    }

    #[test]
    fn what_is_outside_is_cut_off() {
        let at = drawn(|raster| {
            raster.draw_path([(-1_000, 8), (1_000, 8)], &BLACK).unwrap();
            raster.draw_pixel((-1, 0), BLACK.to_backend_color()).unwrap();
            raster.draw_pixel((40, 0), BLACK.to_backend_color()).unwrap();
            let style = ("", 14).into_font().color(&BLACK);
            raster.draw_text(&"m".repeat(5_000), &style, (-9, 30)).unwrap();
        });
        assert_eq!([at(0, 8), at(39, 8), at(0, 0), at(39, 0)], [INK, INK, PAPER, PAPER]);
    }

    #[test]
    fn colours_mix_by_their_opacity() {
        let at = drawn(|raster| {
            raster.draw_pixel((1, 1), BLACK.mix(0.25).to_backend_color()).unwrap();
        });
        assert_eq!(at(1, 1), [191, 191, 191]);
    }

    /// Columns and rows that have any ink.
    fn extent(at: impl Fn(usize, usize) -> [u8; 3]) -> (Vec<usize>, Vec<usize>) {
        let is_inked = |x: usize, y: usize| at(x, y) != PAPER;
        let columns = (0..40).filter(|&x| (0..40).any(|y| is_inked(x, y))).collect();
        let rows = (0..40).filter(|&y| (0..40).any(|x| is_inked(x, y))).collect();
        (columns, rows)
    }

    #[test]
    fn a_text_is_where_its_anchor_says() {
        let written = |h, v, turn| {
            extent(drawn(|raster| {
                let font = ("", 14).into_font().transform(turn);
                let style = font.color(&BLACK).pos(Pos::new(h, v));
                raster.draw_text("HH", &style, (20, 20)).unwrap();
            }))
        };
        let all = |places: &[usize], wanted: fn(usize) -> bool| {
            !places.is_empty() && places.iter().all(|&place| wanted(place))
        };
        let (columns, rows) = written(HPos::Left, VPos::Top, FontTransform::None);
        assert!(all(&columns, |x| x >= 20) && all(&rows, |y| y >= 20), "{columns:?} {rows:?}");
        let (columns, rows) = written(HPos::Right, VPos::Bottom, FontTransform::None);
        assert!(all(&columns, |x| x < 20) && all(&rows, |y| y < 20), "{columns:?} {rows:?}");
        let (columns, rows) = written(HPos::Center, VPos::Center, FontTransform::None);
        let (left, right) = (columns[0], columns[columns.len() - 1]);
        assert!((38..=40).contains(&(left + right)), "{columns:?}");
        assert!(rows.contains(&20), "{rows:?}");
        // Upwards: what was to the right is above.
        let (columns, rows) = written(HPos::Left, VPos::Top, FontTransform::Rotate270);
        assert!(all(&columns, |x| x >= 20) && all(&rows, |y| y <= 20), "{columns:?} {rows:?}");
    }

    #[test]
    fn letters_that_there_are_not_are_question_marks() {
        let written = |text: &'static str| {
            let at = drawn(|raster| {
                let style = ("", 14).into_font().color(&BLACK);
                raster.draw_text(text, &style, (2, 2)).unwrap();
            });
            (0..40 * 40).map(|n| at(n % 40, n / 40)).collect::<Vec<_>>()
        };
        assert_eq!(written("\u{4e2d}a"), written("?a"));
        assert_ne!(written("?a"), written("aa"));
    }
}
