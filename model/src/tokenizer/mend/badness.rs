//! Which neighbours no sound text has: `ftfy`'s sign of mojibake.
//!
//! The classes and the rules are those of `ftfy.badness`, since texts are to be judged alike.

use regex::Regex;

// Members of one class are alike in how seldom they stand beside those of another.
const COMMON: &str = "\u{a0}\u{ad}´·–-―’…";
const C1: &str = "\u{80}-\u{9f}";
const BAD: &str = "¤¦¨ª¬¯¸ºƒ\u{2c6}\u{2c7}\u{2d8}\u{2db}\u{2dc}†‡‰⌐◊\u{fffd}";
const LAW: &str = "§¶";
const CURRENCY: &str = "¢£¥₧€";
const OPENING: &str = "¡©«¿\u{384}\u{385}‘‚“„•‹\u{f8ff}";
const CLOSING: &str = "®»\u{2dd}”›™";
const NUMERIC: &str = "±-³µ¹¼-¾×÷⁄№∂∆∏∑√∞∩∫≈≠≡≤≥";
/// Letters that faces are drawn with.
const FACES: &str = "°Ò-ÖÙ-Üò-öø-üŌŐŪŲ";
const UPPER_ACCENTED: &str = "À-ÑØÜÝĀĂĄĆČĎĐĒĖĘĚĞĢĪİĶĹĻĽŁŃŅŇŒŘŚŞŠŢŤŮŰŸŹŻŽҐ";
const LOWER_ACCENTED: &str = "ß-ñüāăąćčďđēėęěğģīįķĺļľłœŕśşšťźżžґﬁﬂ";
const UPPER_COMMON: &str = "ÞΆΈ-ΊΌΎΏΑ-ΫЁ-Я";
const LOWER_COMMON: &str = "ά-ωа-џ";
const BOX: &str = "│┌┐┘├┤┬┼═-╬▀▄█▌▐-▓";

// Python's idea of white space and of a letter or digit.
const SPACE: &str = r"\s\x1c-\x1f";
const WORD: &str = r"\p{L}\p{N}_";

/// Matches a text that looks like mojibake.
pub(super) fn badness() -> Regex {
    let accented = format!("{UPPER_ACCENTED}{LOWER_ACCENTED}");
    let signs = format!("{BOX}{OPENING}{CLOSING}{CURRENCY}{NUMERIC}{LAW}");
    let arabic = format!("[ØÙ][{COMMON}{CURRENCY}{BAD}{NUMERIC}{OPENING}ŸŠ®°µ»]");
    let rules = [
        // Whatever stands beside them.
        format!("[{C1}]"),
        format!("[{accented}{signs}{BAD}][{BAD}]"),
        format!("[{BAD}][{accented}{signs}]"),
        format!("[a-zA-Z][{LOWER_COMMON}{UPPER_COMMON}][{BAD}]"),
        // Accented letters at the wrong end of a word, or beside signs.
        format!(
            "[{LOWER_ACCENTED}{LOWER_COMMON}{BOX}{CLOSING}{CURRENCY}{NUMERIC}][{UPPER_ACCENTED}]"
        ),
        format!("[{BOX}{CLOSING}{CURRENCY}{NUMERIC}][{LOWER_ACCENTED}]"),
        format!("[{LOWER_ACCENTED}{BOX}{CLOSING}][{CURRENCY}]"),
        format!("[{SPACE}][{UPPER_ACCENTED}][{CURRENCY}]"),
        format!("[{UPPER_ACCENTED}{BOX}][{NUMERIC}{LAW}]"),
        format!("[{accented}{BOX}{CURRENCY}{CLOSING}][{OPENING}][{NUMERIC}]"),
        format!("[{accented}{CURRENCY}{NUMERIC}{BOX}{LAW}][{CLOSING}][{OPENING}]"),
        format!("[{CURRENCY}{NUMERIC}{BOX}][{OPENING}]"),
        format!("[a-z][{UPPER_ACCENTED}][{OPENING}{CURRENCY}]"),
        format!("[{accented}][{OPENING}{CLOSING}][{WORD}]"),
        format!("[{UPPER_ACCENTED}]°"),
        "[Œœ][^A-Za-z]".to_owned(),
        // Lines of boxes beside anything but boxes.
        format!("[{BOX}][{FACES}{CLOSING}]"),
        format!("[{accented}{CURRENCY}{NUMERIC}{OPENING}{CLOSING}{LAW}][{BOX}]"),
        // Windows-1252: usual pairs, Arabic, South Asian scripts, à and á and the no-break space.
        format!("[ÂÃÎÐ][€œŠš¢£Ÿž\u{a0}\u{ad}®©°·»{OPENING}{CLOSING}–—´]"),
        "×[²³]".to_owned(),
        arabic.repeat(2),
        "à[²µ¹¼½¾]".to_owned(),
        "Ã[\u{a0}¡]".to_owned(),
        format!("[a-z][{SPACE}]?[ÃÂ] "),
        "^[ÃÂ] ".to_owned(),
        format!("[a-z.,?!{CLOSING}]Â[ {OPENING}{CLOSING}]"),
        // Mac Roman.
        "√[±∂†≠®™´≤≥¥µø]".to_owned(),
        "≈[°¢]".to_owned(),
        "‚Ä[ìîïòôúùû†°¢π]".to_owned(),
        "‚[âó][àä°ê]".to_owned(),
        // Windows-1251, and it upon Windows-1252 in Latin text.
        "вЂ".to_owned(),
        format!("[ВГРС][{C1}{BAD}{OPENING}{CLOSING}{CURRENCY}°µ][ВГРС]"),
        "ГўВЂВ.[A-Za-z ]".to_owned(),
        // Windows-1253 and Windows-1257.
        "β€[™\u{a0}Ά\u{ad}®°]".to_owned(),
        format!("[ΒΓΞΟ][{C1}{BAD}{OPENING}{CLOSING}{CURRENCY}°][ΒΓΞΟ]"),
        "ā€".to_owned(),
    ];
    Regex::new(&rules.join("|")).expect("the rules are constants and tested")
}
