//! Pictures in files: what is drawn once becomes an SVG or a PNG, by the ending
//! of the file's name.

mod raster;

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use plotters::coord::Shift;
use plotters::prelude::{
    DrawingArea, DrawingBackend, IntoDrawingArea as _, RGBColor, SVGBackend, WHITE,
};
use thiserror::Error;

use self::raster::Raster;

/// What can be drawn.
pub trait Drawing {
    /// Width and height in pixels.
    fn size(&self) -> (u32, u32);

    /// Draws it upon white.
    fn draw<B: DrawingBackend<ErrorType: 'static>>(&self, area: &Area<B>) -> Drawn;
}

/// Where something is drawn.
pub type Area<B> = DrawingArea<B, Shift>;

/// Whether it could be drawn.
pub type Drawn = Result<(), Box<dyn Error>>;

/// The family of the letters. A viewer of SVG chooses them; PNG has its own.
pub const FONT: &str = "sans-serif";
/// The colour of letters and axes.
pub const INK: RGBColor = RGBColor(40, 40, 40);
/// What is well.
pub const GREEN: RGBColor = RGBColor(44, 140, 80);
/// What is not.
pub const RED: RGBColor = RGBColor(204, 51, 51);

/// Room for a text of any letters: nobody knows those of the viewer.
pub fn room_for(text: &str) -> i32 {
    const LETTER: i32 = 9;
    // What is longer is cut off by the edge.
    LETTER * i32::try_from(text.chars().count()).unwrap_or(i32::MAX).min(100)
}

/// Why there is no picture.
#[derive(Debug, Error)]
pub enum PictureError {
    #[error("plot {0}: the ending is neither .svg nor .png")]
    Ending(PathBuf),
    #[error("write plot {0}: {1}")]
    Write(PathBuf, io::Error),
    #[error("draw plot: {0}")]
    Draw(String),
}

/// A file for a picture, of a kind that can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PictureFile {
    path: PathBuf,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Svg,
    Png,
}

impl PictureFile {
    /// Nothing is opened or written yet.
    pub fn named(name: impl AsRef<Path>) -> Result<Self, PictureError> {
        let path = name.as_ref().to_owned();
        let is = |ending| path.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending));
        let format = match (is("svg"), is("png")) {
            (true, _) => Format::Svg,
            (_, true) => Format::Png,
            _ => return Err(PictureError::Ending(path)),
        };
        Ok(Self { path, format })
    }

    pub fn write(&self, drawing: &impl Drawing) -> Result<(), PictureError> {
        let picture = match self.format {
            Format::Svg => svg(drawing)?.into_bytes(),
            Format::Png => png(drawing)?,
        };
        fs::write(&self.path, picture)
            .map_err(|error| PictureError::Write(self.path.clone(), error))
    }
}

/// The picture as a text.
pub fn svg(drawing: &impl Drawing) -> Result<String, PictureError> {
    let mut picture = String::new();
    render(SVGBackend::with_string(&mut picture, drawing.size()), drawing)?;
    Ok(picture)
}

/// The picture as pixels, compressed.
pub fn png(drawing: &impl Drawing) -> Result<Vec<u8>, PictureError> {
    let (width, height) = drawing.size();
    let mut pixels = Vec::new();
    render(Raster::upon(&mut pixels, (width, height)), drawing)?;
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder
        .write_header()
        .and_then(|mut writer| {
            writer.write_image_data(&pixels)?;
            writer.finish()
        })
        .map_err(|error| PictureError::Draw(error.to_string()))?;
    Ok(file)
}

fn render<B: DrawingBackend<ErrorType: 'static>>(
    backend: B,
    drawing: &impl Drawing,
) -> Result<(), PictureError> {
    let area = backend.into_drawing_area();
    let draw = || {
        area.fill(&WHITE)?;
        drawing.draw(&area)?;
        Ok(area.present()?)
    };
    draw().map_err(|error: Box<dyn Error>| PictureError::Draw(error.to_string()))
}

/// Pictures as tests look at them.
#[cfg(test)]
pub mod seen {
    use std::io::Cursor;

    /// A decoded PNG.
    pub struct Seen {
        pub size: (u32, u32),
        pixels: Vec<u8>,
    }

    impl Seen {
        pub fn of(file: &[u8]) -> Self {
            let mut reader = png::Decoder::new(Cursor::new(file)).read_info().expect("a PNG");
            let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
            let info = reader.next_frame(&mut pixels).expect("pixels");
            assert_eq!(info.color_type, png::ColorType::Rgb);
            Self { size: (info.width, info.height), pixels }
        }

        pub fn at(&self, x: u32, y: u32) -> [u8; 3] {
            let place = usize::try_from(y * self.size.0 + x).expect("a place") * 3;
            [self.pixels[place], self.pixels[place + 1], self.pixels[place + 2]]
        }

        /// The pixels of a colour within a rectangle.
        pub fn count(
            &self,
            colour: [u8; 3],
            x: std::ops::Range<u32>,
            y: std::ops::Range<u32>,
        ) -> usize {
            let all = y.flat_map(|y| x.clone().map(move |x| (x, y)));
            all.filter(|&(x, y)| self.at(x, y) == colour).count()
        }
    }
}
