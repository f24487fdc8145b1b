//! Where things go on a surface: a thin frame, the caption in the middle, and below it, if it moves, a clock and
//! a progress bar. Of a surface without background only an ellipse in the middle is left, and the caption in it.

use std::ops::Range;
use std::time::Duration;

use super::caption::{Area, Caption};

/// A surface with its things in place, to be read row by row.
pub(super) struct Layout {
    frame: Area,
    rule: usize,
    caption: Caption,
}

/// The places of what changes over time. Empty areas where there is no room.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Footer {
    pub(super) clock: Area,
    pub(super) bar: Area,
}

/// What a footer shows at one moment.
pub(super) struct Moment {
    footer: Footer,
    /// How much of the bar is filled.
    filled: usize,
    clock: Caption,
}

/// The ellipse that is left where the background is removed.
#[derive(Clone, Copy)]
pub(super) struct Figure {
    width: usize,
    height: usize,
}

/// The values that stand for the ground, for rules and for text in one row.
#[derive(Clone, Copy)]
pub(super) struct Inks {
    pub(super) ground: u8,
    pub(super) rule: u8,
    pub(super) text: u8,
}

impl Layout {
    /// For a surface that stands still.
    pub(super) fn still(width: usize, height: usize, caption: &[String]) -> Self {
        let (frame, rule) = frame(width, height);
        let inside = inset(frame, width.min(height) / 32);
        Self { frame, rule, caption: Caption::fitted(caption, inside, letters(width, height)) }
    }

    /// For one that stands still and of which only the figure is left.
    pub(super) fn cut_out(width: usize, height: usize, caption: &[String]) -> (Self, Figure) {
        // The largest rectangle in an ellipse has 0.707 of its sides, and the ellipse has 5/6 of the surface's.
        let (across, down) = (width * 7 / 12, height * 7 / 12);
        let inside =
            Area { left: (width - across) / 2, top: (height - down) / 2, width: across, height: down };
        let caption = Caption::fitted(caption, inside, letters(width, height));
        (Self { frame: Area::default(), rule: 0, caption }, Figure { width, height })
    }

    /// For one that moves: with room for a footer.
    pub(super) fn moving(width: usize, height: usize, caption: &[String]) -> (Self, Footer) {
        let unit = width.min(height);
        let (frame, rule) = frame(width, height);
        let mut inside = inset(frame, unit / 32);
        let mut bottom = |height: usize, gap: usize| {
            let height = height.min(inside.height);
            inside.height -= height;
            let area = Area { top: inside.top + inside.height, height, ..inside };
            inside.height = inside.height.saturating_sub(gap);
            area
        };
        let bar = bottom((unit / 45).max(1), unit / 36);
        let clock = bottom(unit / 12, unit / 36);
        let layout = Self { frame, rule, caption: Caption::fitted(caption, inside, letters(width, height)) };
        (layout, Footer { clock, bar })
    }

    /// Fills `row`, which is row `y` of the surface.
    pub(super) fn row(&self, y: usize, inks: Inks, row: &mut [u8]) {
        row.fill(inks.ground);
        let (left, right) = (self.frame.left, self.frame.left + self.frame.width);
        let (top, bottom) = (self.frame.top, self.frame.top + self.frame.height);
        if self.rule > 0 && (top..bottom).contains(&y) {
            if y < top + self.rule || y >= bottom - self.rule {
                row[left..right].fill(inks.rule);
            } else {
                row[left..left + self.rule].fill(inks.rule);
                row[right - self.rule..right].fill(inks.rule);
            }
        }
        self.caption.spans(y).for_each(|span| row[span].fill(inks.text));
    }
}

impl Figure {
    /// The columns that it covers in row `y`.
    pub(super) fn columns(self, y: usize) -> Range<usize> {
        let diameter = |side: usize| (side * 5 / 6).max(2);
        let (across, down) = (diameter(self.width), diameter(self.height));
        // All in half pixels, so that the middle of a row of pixels is a whole number.
        let off_centre = (2 * y + 1).abs_diff(self.height);
        let Some(rest) = (down * down).checked_sub(off_centre * off_centre) else { return 0..0 };
        let left = self.width.saturating_sub(across * rest.isqrt() / down) / 2;
        left..self.width - left
    }
}

impl Footer {
    /// The rows in which moments differ.
    pub(super) fn rows(self) -> Range<usize> {
        self.clock.top..self.bar.top + self.bar.height
    }

    /// How much of the bar is filled in picture `index` of `count`.
    pub(super) fn filled(self, index: usize, count: usize) -> usize {
        self.bar.width * (index + 1) / count
    }

    /// The moment at which so much of the bar is `filled`, and so many seconds of `duration` are over.
    pub(super) fn moment(self, filled: usize, seconds: u64, duration: Duration) -> Moment {
        let text = format!("{} / {}", minutes(seconds), minutes(duration.as_secs()));
        Moment { footer: self, filled, clock: Caption::fitted(&[text], self.clock, self.clock.height) }
    }
}

impl Moment {
    /// Changes `row`, which is row `y` of the surface, to what it is at this moment.
    pub(super) fn row(&self, y: usize, inks: Inks, row: &mut [u8]) {
        let Footer { clock, bar } = self.footer;
        if (bar.top..bar.top + bar.height).contains(&y) {
            let (done, open) = row[bar.left..bar.left + bar.width].split_at_mut(self.filled);
            done.fill(inks.text);
            open.fill(inks.rule);
        }
        if (clock.top..clock.top + clock.height).contains(&y) {
            row[clock.left..clock.left + clock.width].fill(inks.ground);
            self.clock.spans(y).for_each(|span| row[span].fill(inks.text));
        }
    }
}

/// As players show it: minutes and seconds.
fn minutes(seconds: u64) -> String {
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// The outline and thickness of the frame. A surface too small for one has it at its edge, of no thickness.
fn frame(width: usize, height: usize) -> (Area, usize) {
    let unit = width.min(height);
    let rule = if unit < 32 { 0 } else { (unit / 300).max(1) };
    (inset(Area { left: 0, top: 0, width, height }, unit / 24), rule)
}

/// `area` without a margin on every side.
fn inset(area: Area, margin: usize) -> Area {
    Area {
        left: area.left + margin,
        top: area.top + margin,
        width: area.width.saturating_sub(margin * 2),
        height: area.height.saturating_sub(margin * 2),
    }
}

/// The largest height of letters.
fn letters(width: usize, height: usize) -> usize {
    (width.min(height) / 9).max(6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_stays_on_the_surface() {
        let caption = ["A caption of some length".to_owned(), String::new()];
        for (width, height) in [(1, 1), (2, 90), (31, 32), (320, 180), (300, 8), (33, 500)] {
            let inks = Inks { ground: 0, rule: 1, text: 2 };
            let (layout, footer) = Layout::moving(width, height, &caption);
            (0..height).for_each(|y| layout.row(y, inks, &mut vec![9; width]));
            assert!(footer.bar.top + footer.bar.height <= height, "{footer:?}");
            assert!(footer.bar.left + footer.bar.width <= width, "{footer:?}");
            let moment = footer.moment(footer.filled(0, 2), 1, Duration::from_secs(2));
            footer.rows().for_each(|y| moment.row(y, inks, &mut vec![9; width]));
            let still = Layout::still(width, height, &caption);
            (0..height).for_each(|y| still.row(y, inks, &mut vec![9; width]));
            let (cut_out, figure) = Layout::cut_out(width, height, &caption);
            (0..height).for_each(|y| cut_out.row(y, inks, &mut vec![9; width]));
            assert!((0..height).all(|y| figure.columns(y).end <= width), "{width}x{height}");
        }
    }

    #[test]
    fn a_figure_is_in_the_middle_and_holds_its_caption() {
        let caption = ["A caption of some length".to_owned()];
        for (width, height) in [(1, 1), (2, 2), (7, 5), (64, 64), (320, 180), (33, 500)] {
            let (layout, figure) = Layout::cut_out(width, height, &caption);
            assert!(figure.columns(height / 2).contains(&(width / 2)), "{width}x{height}");
            for y in 0..height {
                let mut row = vec![0; width];
                layout.row(y, Inks { ground: 0, rule: 1, text: 2 }, &mut row);
                let columns = figure.columns(y);
                assert!((0..width).all(|x| row[x] == 0 || columns.contains(&x)), "{width}x{height}, row {y}");
            }
        }
        let (_, figure) = Layout::cut_out(320, 180, &[]);
        assert_eq!([figure.columns(0), figure.columns(179)], [0..0, 0..0]);
        assert_eq!(figure.columns(90), 28..292);
    }
}
