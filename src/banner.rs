//! What the screen says in letters that can be read from across a room: the phase, how much of it is done, and how
//! long it still takes.
//!
//! From figures to what a terminal is sent, and nothing else: it writes to nothing.

use crate::text::{Text, Writer};
use core::convert::Infallible;
use ufmt::{uWrite, uwrite};

/// The colours of letters, as the console has them: console_codes(4), ECMA-48 SGR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Colour {
    /// It failed.
    Red = 1,
    /// It is done.
    Green = 2,
    /// It is at work.
    White = 7,
}

/// The letters: a digit for each of five rows, a bit of it for each of three columns. 0 to 9, the colon, A to Z, and
/// the percent sign.
const LETTERS: [u16; 38] = [
    0o75557, 0o26227, 0o71747, 0o71717, 0o55711, 0o74717, 0o74757, 0o71111, 0o75757, 0o75717,
    0o02020, 0o25755, 0o65656, 0o34443, 0o65556, 0o74647, 0o74644, 0o34553, 0o55755, 0o72227,
    0o11152, 0o55655, 0o44447, 0o57755, 0o65555, 0o25552, 0o65644, 0o25563, 0o65655, 0o34216,
    0o72222, 0o55557, 0o55552, 0o55775, 0o55255, 0o55222, 0o71247, 0o51245,
];
/// The rows and columns of a letter, in dots, with the gap behind it.
const ROWS: usize = 5;
const COLUMNS: usize = 4;
/// The longest text: `UNMOUNT`, or `VERIFY 100% 99:59`.
const LONGEST: usize = 17;
/// The most columns that are used.
const WIDEST: usize = 640;

/// A row as the terminal is sent it.
pub type Row = Text<1100>;

/// What is shown of a phase, with how much of it is done in percent and the seconds that are left where they are known.
pub fn words(phase: &str, progress: Option<(u64, u64)>) -> Text<24> {
    match progress {
        None => crate::text!("{}", phase),
        Some((percent, left @ 0..6000)) => {
            let zero = if left % 60 < 10 { "0" } else { "" };
            crate::text!("{} {}% {}:{}{}", phase, percent, left / 60, zero, left % 60)
        }
        Some((percent, left)) => crate::text!("{} {}% {}H", phase, percent, left.div_ceil(3600)),
    }
}

/// How many rows a dot of a letter takes on a screen of that size: a quarter of it is for letters. 0 where there is no
/// room for the longest text.
fn dot(rows: usize, columns: usize) -> usize {
    if rows < 15 || columns < LONGEST * COLUMNS { 0 } else { (rows / 20).max(1) }
}

/// How many rows of a screen of that size are for the letters, at its top.
pub fn height(rows: usize, columns: usize) -> usize {
    match dot(rows, columns) {
        0 => 0,
        tall => ROWS * tall + 2,
    }
}

/// Gives each of the top rows of a screen of that size with `text` on it. The cursor stays where it is, and each row is
/// whole in itself: what others write may come between two.
pub fn draw(text: &str, colour: Colour, rows: usize, columns: usize, give: &mut dyn FnMut(&Row)) {
    let tall = dot(rows, columns);
    let wide = columns.min(WIDEST) / (COLUMNS * text.len().max(1));
    // A column is half as wide as a row is high.
    let wide = wide.clamp(1, 2 * tall.max(1));
    for row in 0..height(rows, columns) {
        // A row without dots above and below.
        let of_letter = row.checked_sub(1).map_or(ROWS, |row| row / tall.max(1));
        give(&Text::build(&mut |writer: &mut Writer| {
            uwrite!(writer, "\x1b7\x1b[{};1H\x1b[0m\x1b[2K", row + 1)?;
            write_dots(writer, text, of_letter, wide, colour)?;
            writer.write_str("\x1b8")
        }));
    }
}

fn write_dots(
    writer: &mut Writer,
    text: &str,
    row: usize,
    wide: usize,
    colour: Colour,
) -> Result<(), Infallible> {
    let mut was_lit = false;
    for letter in text.bytes() {
        for column in 0..COLUMNS {
            let is_lit = is_lit(letter, row, column);
            if is_lit && !was_lit {
                uwrite!(writer, "\x1b[4{}m", colour as u8)?;
            } else if was_lit && !is_lit {
                writer.write_str("\x1b[0m")?;
            }
            was_lit = is_lit;
            for _ in 0..wide {
                writer.write_str(" ")?;
            }
        }
    }
    Ok(())
}

/// True where a letter has a dot; it has none in the gap behind it, and what is no letter has none at all.
fn is_lit(letter: u8, row: usize, column: usize) -> bool {
    let index = match letter.to_ascii_uppercase() {
        digit @ b'0'..=b':' => digit - b'0',
        letter @ b'A'..=b'Z' => letter - b'A' + 11,
        b'%' => 37,
        _ => return false,
    };
    let dots = LETTERS.get(usize::from(index)).copied().unwrap_or(0);
    // The fifth row, and the fourth column, are the last ones that there are.
    let from_the_end = (ROWS * 3).checked_sub(row * 3 + column + 1);
    column < 3 && from_the_end.is_some_and(|bit| dots >> bit & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a terminal of that size shows in its top rows: a colour's digit for each cell that has one.
    fn shown(text: &str, colour: Colour, rows: usize, columns: usize) -> Vec<String> {
        let mut screen = vec![vec![' '; columns]; height(rows, columns)];
        draw(text, colour, rows, columns, &mut |row: &Row| {
            let inner = row.strip_prefix("\x1b7\x1b[").unwrap().strip_suffix("\x1b8").unwrap();
            let (number, dots) = inner.split_once(";1H\x1b[0m\x1b[2K").unwrap();
            let (mut cells, mut ink) = (Vec::new(), ' ');
            let mut rest = dots.chars();
            while let Some(character) = rest.next() {
                if character == '\x1b' {
                    let code: String = rest.by_ref().skip(1).take_while(|c| *c != 'm').collect();
                    ink = code.strip_prefix('4').map_or(' ', |digit| digit.parse().unwrap());
                } else {
                    assert_eq!(character, ' ');
                    cells.push(ink);
                }
            }
            assert!(cells.len() <= columns && ink == ' ', "{} cells", cells.len());
            let place = &mut screen[number.parse::<usize>().unwrap() - 1];
            place[..cells.len()].copy_from_slice(&cells);
        });
        screen.iter().map(|row| row.iter().collect::<String>().trim_end().to_string()).collect()
    }

    #[test]
    fn letters_stand_in_the_top_rows() {
        let found = shown("Flash 7%", Colour::White, 25, 80);
        let wanted = [
            "",
            "777777  77        77      7777  77  77          777777  77  77",
            "77      77      77  77  77      77  77              77      77",
            "7777    77      777777    77    777777              77    77",
            "77      77      77  77      77  77  77              77  77",
            "77      777777  77  77  7777    77  77              77  77  77",
            "",
        ];
        assert_eq!(found, wanted);
        assert_eq!(
            shown("DONE", Colour::Green, 25, 80)[3].trim_end(),
            "22  22  22  22  22  22  2222"
        );
    }

    #[test]
    fn they_are_as_large_as_the_screen_allows() {
        // Text modes, a small panel, full HD, 4K; a serial line that says nothing, and one that is narrow.
        for (rows, columns, tall, wide) in
            [(25, 80, 1, 2), (30, 100, 1, 2), (48, 128, 2, 3), (67, 240, 3, 6), (135, 480, 6, 12)]
        {
            let found = shown("FLASH 45%", Colour::White, rows, columns);
            assert_eq!(found.len(), 5 * tall + 2, "{rows}");
            let of_f = format!("{}{}{}", "7".repeat(3 * wide), " ".repeat(wide), "7".repeat(wide));
            assert!(found[1..=tall].iter().all(|row| row.starts_with(&of_f)), "{found:?}");
            assert!(found.len() <= rows / 2);
        }
        assert_eq!((height(0, 0), height(24, 40), height(10, 80)), (0, 0, 0));
    }

    #[test]
    fn the_longest_text_fits_whatever_the_screen() {
        let longest = words("VERIFY", Some((100, 5999)));
        assert_eq!((&*longest, longest.len()), ("VERIFY 100% 99:59", LONGEST));
        for (rows, columns) in [(15, 68), (25, 80), (67, 240), (200, 1000)] {
            let found = shown(&longest, Colour::Red, rows, columns);
            // A row that was cut would not end as it must.
            assert!(found[1].ends_with('1') && found[1].len() <= columns);
        }
        for phase in crate::progress::PHASES {
            assert!(phase.name().len() <= 7);
        }
    }

    #[test]
    fn the_time_left_is_in_minutes_and_seconds_or_in_hours() {
        assert_eq!(&*words("flash", Some((4, 65))), "flash 4% 1:05");
        assert_eq!(&*words("flash", Some((4, 50))), "flash 4% 0:50");
        assert_eq!(&*words("flash", Some((4, 6000))), "flash 4% 2H");
        assert_eq!(&*words("kill", None), "kill");
    }
}
