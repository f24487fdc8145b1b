//! Where things go on a surface: a thin frame, the caption in the middle, and below it, if it moves, a clock and
//! a progress bar.

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
            let still = Layout::still(width, height, &caption);
            (0..height).for_each(|y| still.row(y, inks, &mut vec![9; width]));
        }
    }
}
