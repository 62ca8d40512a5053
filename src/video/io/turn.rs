//! The display matrix: how a stored picture is turned before it is shown.

use super::picture::Picture;

/// One of the eight ways to lay a picture on its own axes.
///
/// Displayed `(x', y') = (a·x + c·y, b·x + d·y)`, moved into the first quadrant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    a: i8,
    b: i8,
    c: i8,
    d: i8,
}

impl Turn {
    /// As stored.
    pub const NONE: Self = Self { a: 1, b: 0, c: 0, d: 1 };

    /// From the nine 16.16 numbers of a display matrix; `None` unless it is a turn by right angles,
    /// possibly mirrored.
    pub fn from_matrix(matrix: [i32; 9]) -> Option<Self> {
        let unit = |v: i32| match v {
            0 => Some(0),
            0x1_0000 => Some(1),
            -0x1_0000 => Some(-1),
            _ => None,
        };
        let [a, b, _, c, d, ..] = matrix;
        let turn = Self { a: unit(a)?, b: unit(b)?, c: unit(c)?, d: unit(d)? };
        (i32::from(turn.a * turn.d - turn.b * turn.c).abs() == 1).then_some(turn)
    }

    /// Width and height change places.
    pub fn transposes(self) -> bool {
        self.a == 0
    }

    /// Size as displayed.
    pub fn size(self, (width, height): (usize, usize)) -> (usize, usize) {
        if self.transposes() { (height, width) } else { (width, height) }
    }

    /// The picture as displayed.
    pub fn apply(self, picture: Picture) -> Picture {
        if self == Self::NONE {
            return picture;
        }
        let (w, h) = (picture.width, picture.height);
        let size = self.size((w, h));
        picture.map_planes(size, |plane| {
            let mut out = vec![0.0; plane.len()];
            for y in 0..h {
                for x in 0..w {
                    let (tx, ty) = self.target(x, y, size);
                    out[ty * size.0 + tx] = plane[y * w + x];
                }
            }
            out
        })
    }

    /// Where pixel `(x, y)` is displayed in a picture of `size`.
    fn target(self, x: usize, y: usize, size: (usize, usize)) -> (usize, usize) {
        let place = |along: i8, across: i8, len: usize| {
            let (sign, at) = if along == 0 { (across, y) } else { (along, x) };
            if sign < 0 { len - 1 - at } else { at }
        };
        (place(self.a, self.c, size.0), place(self.b, self.d, size.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: i32 = 0x1_0000;

    fn turn(a: i32, b: i32, c: i32, d: i32) -> Turn {
        Turn::from_matrix([a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30]).unwrap()
    }

    #[test]
    fn a_quarter_clockwise() {
        // 1 2 3      4 1
        // 4 5 6  ->  5 2
        //            6 3
        let picture = Picture::from_fn(3, 2, |x, y| [(1 + x + 3 * y) as f32; 3]);
        let turned = turn(0, 1, -1, 0).apply(picture.clone());
        assert_eq!((turned.width, turned.height), (2, 3));
        assert_eq!(turned.plane(0), [4.0, 1.0, 5.0, 2.0, 6.0, 3.0]);
        assert_eq!(turn(-1, 0, 0, -1).apply(picture.clone()).plane(2), [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]);
        assert_eq!(turn(-1, 0, 0, 1).apply(picture).plane(1), [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]);
    }

    #[test]
    fn four_quarters_are_none() {
        let picture = Picture::from_fn(5, 3, |x, y| [x as f32, y as f32, 1.0]);
        let mut turned = picture.clone();
        for _ in 0..4 {
            turned = turn(0, 1, -1, 0).apply(turned);
        }
        assert_eq!(turned, picture);
        assert_eq!(Turn::from_matrix([ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30]), Some(Turn::NONE));
        assert_eq!(Turn::from_matrix([ONE / 2, ONE / 2, 0, -ONE / 2, ONE / 2, 0, 0, 0, 1 << 30]), None);
        assert_eq!(Turn::from_matrix([0; 9]), None);
    }
}
