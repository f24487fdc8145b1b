//! Text as runs of pixels: wrapped, as large as fits, in bitmap fonts.

use std::ops::Range;

use embedded_graphics::geometry::Point;
use embedded_graphics::image::GetPixel;
use embedded_graphics::mono_font::MonoFont;
use embedded_graphics::mono_font::iso_8859_1::{
    FONT_4X6, FONT_5X8, FONT_6X10, FONT_8X13, FONT_9X15, FONT_10X20,
};
use embedded_graphics::pixelcolor::BinaryColor;

/// A rectangle of pixels.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Area {
    pub(super) left: usize,
    pub(super) top: usize,
    pub(super) width: usize,
    pub(super) height: usize,
}

/// Text that has found its size and place.
#[derive(Default)]
pub(super) struct Caption {
    size: Option<Size>,
    left: usize,
    top: usize,
    /// The glyphs of each line, as the font numbers them.
    lines: Vec<Vec<usize>>,
}

/// A font, each of its pixels drawn as a square of `scale` pixels.
#[derive(Clone, Copy)]
struct Size {
    font: &'static MonoFont<'static>,
    scale: usize,
}

/// More lines than any surface shows.
const MOST_LINES: usize = 1024;
/// More characters than a line of the smallest font has on the largest surface.
const MOST_CHARS: usize = 4096;

impl Caption {
    /// Sets `lines` into the middle of `area`, in letters up to `largest` pixels high.
    ///
    /// The largest size at which no line need be broken is taken, or the largest at which no word need be, unless
    /// that is less than half of the largest at which the text fits when broken anywhere.
    pub(super) fn fitted(lines: &[String], area: Area, largest: usize) -> Self {
        let text: Vec<Vec<char>> =
            lines.iter().flat_map(|line| line.lines()).take(MOST_LINES).map(clean).collect();
        let sizes: Vec<Size> =
            sizes(largest.min(area.height)).filter(|size| size.columns(area) > 0).collect();
        let longest = |parts: &mut dyn Iterator<Item = &[char]>| parts.map(<[char]>::len).max().unwrap_or(0);
        let line = longest(&mut text.iter().map(Vec::as_slice));
        let word = longest(&mut text.iter().flat_map(|line| line.split(|&char| char == ' ')));
        let fits = |size: &&Size| wrap(&text, size.columns(area)).len() <= size.rows(area);
        let with = |columns: usize| sizes.iter().filter(fits).find(|size| size.columns(area) >= columns);
        let Some(anyhow) = with(0).or(sizes.last()) else { return Self::default() };
        let near = |size: &&Size| size.height() * 2 >= anyhow.height();
        let chosen = with(line).filter(near).or(with(word).filter(near)).unwrap_or(anyhow);
        Self::set(&text, *chosen, area)
    }

    /// Sets `text` in a given size, and leaves out the lines that do not fit.
    fn set(text: &[Vec<char>], size: Size, area: Area) -> Self {
        let mut lines = wrap(text, size.columns(area));
        lines.truncate(size.rows(area));
        let height = (lines.len() * size.pitch()).saturating_sub(size.pitch() - size.height());
        let glyph = |char: &char| size.font.glyph_mapping.index(*char);
        Self {
            size: Some(size),
            left: area.left,
            top: area.top + area.height.saturating_sub(height) / 2,
            lines: lines.iter().map(|line| line.iter().map(glyph).collect()).collect(),
        }
    }

    /// The runs of lit pixels in row `y`, from left to right.
    pub(super) fn spans(&self, y: usize) -> impl Iterator<Item = Range<usize>> {
        let row = self.size.and_then(|size| {
            let below = y.checked_sub(self.top)?;
            let line = self.lines.get(below / size.pitch())?;
            let row = below % size.pitch() / size.scale;
            (row < size.font.character_size.height as usize).then_some((size, line, row))
        });
        row.into_iter().flat_map(move |(size, line, row)| {
            let columns = size.font.character_size.width as usize;
            let dots = line.iter().flat_map(move |&glyph| (0..columns).map(move |x| size.lit(glyph, x, row)));
            let place = move |x: usize| self.left + x * size.scale..self.left + (x + 1) * size.scale;
            dots.enumerate().filter(|&(_, lit)| lit).map(move |(x, _)| place(x))
        })
    }
}

impl Size {
    fn width(self) -> usize {
        self.font.character_size.width as usize * self.scale
    }

    fn height(self) -> usize {
        self.font.character_size.height as usize * self.scale
    }

    /// From the top of a line to the top of the next.
    fn pitch(self) -> usize {
        self.height() + (self.height() / 4).max(1)
    }

    fn columns(self, area: Area) -> usize {
        area.width / self.width()
    }

    fn rows(self, area: Area) -> usize {
        (area.height + self.pitch() - self.height()) / self.pitch()
    }

    /// Whether a glyph has a dot at column `x` of row `y`.
    fn lit(self, glyph: usize, x: usize, y: usize) -> bool {
        let (image, cell) = (&self.font.image, self.font.character_size);
        let (width, height) = (cell.width as usize, cell.height as usize);
        let per_row = embedded_graphics::geometry::OriginDimensions::size(image).width as usize / width;
        let (x, y) = (glyph % per_row * width + x, glyph / per_row * height + y);
        let point = i32::try_from(x).ok().zip(i32::try_from(y).ok()).map(|(x, y)| Point::new(x, y));
        point.and_then(|point| image.pixel(point)) == Some(BinaryColor::On)
    }
}

/// All sizes up to `largest` pixels high, the largest first.
fn sizes(largest: usize) -> impl Iterator<Item = Size> {
    let scaled = (2..=(largest / 15).max(1))
        .rev()
        .flat_map(|scale| [&FONT_10X20, &FONT_9X15].map(|font| Size { font, scale }));
    let plain = [&FONT_10X20, &FONT_9X15, &FONT_8X13, &FONT_6X10, &FONT_5X8, &FONT_4X6];
    scaled.chain(plain.map(|font| Size { font, scale: 1 })).filter(move |size| size.height() <= largest)
}

/// The characters of a line; control characters and tabs become spaces.
fn clean(line: &str) -> Vec<char> {
    let visible = |char: char| if char.is_control() || char.is_whitespace() { ' ' } else { char };
    line.trim_end().chars().take(MOST_CHARS).map(visible).collect()
}

/// `text` in lines of at most `columns` (not 0), broken at spaces where there are any.
fn wrap(text: &[Vec<char>], columns: usize) -> Vec<&[char]> {
    let mut lines = Vec::new();
    for line in text {
        let mut rest = line.as_slice();
        while rest.len() > columns {
            let (now, later) = match rest[..=columns].iter().rposition(|&char| char == ' ') {
                Some(space) if space > 0 => (&rest[..space], &rest[space + 1..]),
                _ => rest.split_at(columns),
            };
            lines.push(now);
            rest = later;
        }
        lines.push(rest);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(text: &str, width: usize, height: usize) -> Vec<String> {
        let area = Area { left: 0, top: 0, width, height };
        let caption = Caption::fitted(&[text.to_owned()], area, height);
        let row = |y| {
            let mut row = vec!['.'; width];
            caption.spans(y).for_each(|span| row[span].fill('#'));
            row.into_iter().collect()
        };
        (0..height).map(row).collect()
    }

    #[test]
    fn letters_are_drawn_as_large_as_fits() {
        assert_eq!(drawn("T", 4, 6), ["###.", ".#..", ".#..", ".#..", ".#..", "...."]);
        let twice = drawn("T", 18, 30);
        assert!(twice.iter().any(|row| row.contains("############")), "{twice:#?}");
    }

    #[test]
    fn what_the_font_lacks_is_a_question_mark() {
        assert_eq!(drawn("\u{732b}", 10, 20), drawn("?", 10, 20));
        assert_ne!(drawn("\u{e9}", 10, 20), drawn("?", 10, 20));
    }

    #[test]
    fn lines_break_at_spaces_if_they_can() {
        let check = |text: &str, expected: &[&str]| {
            let text = [clean(text)];
            let lines: Vec<String> = wrap(&text, 6).into_iter().map(String::from_iter).collect();
            assert_eq!(lines, expected);
        };
        check("", &[""]);
        check("a cat sat", &["a cat", "sat"]);
        check("seated cats", &["seated", "cats"]);
        check("incomprehensible", &["incomp", "rehens", "ible"]);
    }

    #[test]
    fn no_room_means_no_text() {
        assert_eq!(drawn("text", 3, 5), ["..."; 5]);
    }
}
