//! The single-byte encodings through which UTF-8 is misread.
//!
//! Bytes below 0x80 are ASCII in each. Those of Windows are *sloppy*: a byte that Microsoft left
//! unassigned stands for the control character of that number, and byte 0x1a for U+FFFD, the mark
//! of a character that was lost.

/// What byte 0x1a and U+FFFD stand for in a sloppy encoding.
const LOST: u8 = 0x1a;

/// One encoding: which character each byte from 0x80 on stands for, and back.
#[derive(Debug)]
pub(super) struct Charmap {
    pub(super) kind: Kind,
    high: Vec<char>,
    /// The same, sorted by character.
    bytes: Vec<(char, u8)>,
}

/// What `ftfy` does differently in some encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Latin1,
    Sloppy,
    /// An en dash before a space looks there like a lost no-break space.
    MacRoman,
    Other,
}

impl Charmap {
    /// All encodings, in the order in which they are tried.
    pub(super) fn all() -> Vec<Self> {
        let latin_1: String = ('\u{80}'..='\u{ff}').collect();
        let iso_8859_2: String = ('\u{80}'..='\u{9f}').chain(ISO_8859_2.chars()).collect();
        let encodings = [
            (Kind::Latin1, latin_1.as_str()),
            (Kind::Sloppy, WINDOWS_1252),
            (Kind::Sloppy, WINDOWS_1251),
            (Kind::Sloppy, WINDOWS_1250),
            (Kind::Sloppy, WINDOWS_1253),
            (Kind::Sloppy, WINDOWS_1254),
            (Kind::Sloppy, WINDOWS_1257),
            (Kind::Other, iso_8859_2.as_str()),
            (Kind::MacRoman, MAC_ROMAN),
            (Kind::Other, CP437),
        ];
        encodings.map(|(kind, high)| Self::new(kind, high)).into()
    }

    fn new(kind: Kind, high: &str) -> Self {
        let high: Vec<char> = high.chars().collect();
        assert_eq!(high.len(), 128, "the tables are constants");
        let mut bytes: Vec<(char, u8)> = high.iter().copied().zip(0x80..=0xff).collect();
        if kind == Kind::Sloppy {
            bytes.push(('\u{fffd}', LOST));
        }
        bytes.sort_unstable();
        Self { kind, high, bytes }
    }

    /// The bytes that stand for `text`, or none if it holds a character without one.
    pub(super) fn encode(&self, text: &str) -> Option<Vec<u8>> {
        text.chars().map(|c| self.byte(c)).collect()
    }

    fn byte(&self, c: char) -> Option<u8> {
        if let Some(byte) = u8::try_from(c).ok().filter(u8::is_ascii) {
            return Some(byte).filter(|&byte| byte != LOST || self.kind != Kind::Sloppy);
        }
        let place = self.bytes.binary_search_by_key(&c, |&(known, _)| known).ok()?;
        Some(self.bytes[place].1)
    }

    /// The characters that bytes from `first` on stand for.
    pub(super) fn high(&self, first: u8) -> &[char] {
        &self.high[usize::from(first - 0x80)..]
    }
}

/// What Windows shows for a C1 control character; five have nothing and stay.
pub(in crate::tokenizer) fn as_windows_1252(c: char) -> char {
    let place = u32::from(c).wrapping_sub(0x80);
    match usize::try_from(place) {
        Ok(place) if place < 0x20 => WINDOWS_1252.chars().nth(place).unwrap_or(c),
        _ => c,
    }
}

const WINDOWS_1252: &str = "\
    €\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ\
    \u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿\
    ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞß\
    àáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ";
const WINDOWS_1251: &str = "\
    ЂЃ‚ѓ„…†‡€‰Љ‹ЊЌЋЏђ‘’“”•–—\u{98}™љ›њќћџ\
    \u{a0}ЎўЈ¤Ґ¦§Ё©Є«¬\u{ad}®Ї°±Ііґµ¶·ё№є»јЅѕї\
    АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ\
    абвгдежзийклмнопрстуфхцчшщъыьэюя";
const WINDOWS_1250: &str = "\
    €\u{81}‚\u{83}„…†‡\u{88}‰Š‹ŚŤŽŹ\u{90}‘’“”•–—\u{98}™š›śťžź\
    \u{a0}ˇ˘Ł¤Ą¦§¨©Ş«¬\u{ad}®Ż°±˛ł´µ¶·¸ąş»Ľ˝ľż\
    ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢß\
    ŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙";
const WINDOWS_1253: &str = "\
    €\u{81}‚ƒ„…†‡\u{88}‰\u{8a}‹\u{8c}\u{8d}\u{8e}\u{8f}\u{90}‘’“”•–—\u{98}™\u{9a}›\u{9c}\u{9d}\u{9e}\u{9f}\
    \u{a0}΅Ά£¤¥¦§¨©ª«¬\u{ad}®―°±²³΄µ¶·ΈΉΊ»Ό½ΎΏ\
    ΐΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡÒΣΤΥΦΧΨΩΪΫάέήί\
    ΰαβγδεζηθικλμνξοπρςστυφχψωϊϋόύώÿ";
const WINDOWS_1254: &str = "\
    €\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}\u{8e}\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}\u{9e}Ÿ\
    \u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿\
    ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏĞÑÒÓÔÕÖ×ØÙÚÛÜİŞß\
    àáâãäåæçèéêëìíîïğñòóôõö÷øùúûüışÿ";
const WINDOWS_1257: &str = "\
    €\u{81}‚\u{83}„…†‡\u{88}‰\u{8a}‹\u{8c}¨ˇ¸\u{90}‘’“”•–—\u{98}™\u{9a}›\u{9c}¯˛\u{9f}\
    \u{a0}¡¢£¤¥¦§Ø©Ŗ«¬\u{ad}®Æ°±²³´µ¶·ø¹ŗ»¼½¾æ\
    ĄĮĀĆÄÅĘĒČÉŹĖĢĶĪĻŠŃŅÓŌÕÖ×ŲŁŚŪÜŻŽß\
    ąįāćäåęēčéźėģķīļšńņóōõö÷ųłśūüżž˙";
/// From 0xa0 on; below are control characters.
const ISO_8859_2: &str = "\
    \u{a0}Ą˘Ł¤ĽŚ§¨ŠŞŤŹ\u{ad}ŽŻ°ą˛ł´ľśˇ¸šşťź˝žż\
    ŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢß\
    ŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙";
const MAC_ROMAN: &str = "\
    ÄÅÇÉÑÖÜáàâäãåçéèêëíìîïñóòôöõúùûü\
    †°¢£§•¶ß®©™´¨≠ÆØ∞±≤≥¥µ∂∑∏π∫ªºΩæø\
    ¿¡¬√ƒ≈∆«»…\u{a0}ÀÃÕŒœ–—“”‘’÷◊ÿŸ⁄€‹›ﬁﬂ\
    ‡·‚„‰ÂÊÁËÈÍÎÏÌÓÔ\u{f8ff}ÒÚÛÙıˆ˜¯˘˙˚¸˝˛ˇ";
const CP437: &str = "\
    ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒ\
    áíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
    └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀\
    αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";
