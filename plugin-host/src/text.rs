//! Texts that somebody else wrote, made safe to show: a terminal and a line of a log print what is left of them and obey
//! none of it.

/// Stands for what was left out.
const INSTEAD: char = '\u{FFFD}';

/// At most so many bytes of the text, cut between characters, without anything that moves a cursor, ends a line or
/// turns the direction of writing: each such character is shown as `U+FFFD`, a line feed or tab as a space.
pub fn printable(text: &str, bytes_max: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(bytes_max));
    for character in text.chars() {
        let character = match character {
            '\n' | '\t' => ' ',
            character if obeyed(character) => INSTEAD,
            character => character,
        };
        if shown.len() + character.len_utf8() > bytes_max {
            break;
        }
        shown.push(character);
    }
    shown
}

/// Control characters (C0, DEL, C1), line and paragraph separators, and those that turn, join or hide text.
fn obeyed(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61C}'
                | '\u{200B}'..='\u{200F}'
                | '\u{2028}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}'
                | '\u{FEFF}'
                | '\u{FFF9}'..='\u{FFFB}'
                | '\u{E0000}'..='\u{E007F}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_or_a_log_would_obey_is_shown_instead() {
        let forged = "a\x1b[2J\n2026-01-01 ERROR gone\r\u{9b}31m\u{202e}\u{2066}\u{7f}é漢";
        let shown = printable(forged, 1_000);
        assert_eq!(shown, "a\u{FFFD}[2J 2026-01-01 ERROR gone\u{FFFD}\u{FFFD}31m\u{FFFD}\u{FFFD}\u{FFFD}é漢");
        assert!(!shown.chars().any(obeyed));
    }

    #[test]
    fn the_cut_falls_between_characters() {
        assert_eq!(printable("né", 2), "n");
        assert_eq!(printable("né", 3), "né");
        // What stands for a control character has three bytes.
        assert_eq!(printable("\x1b\x1b", 5), "\u{FFFD}");
    }
}
