// Vocabulary of the made-up texts of long_text_tasks.h.
#pragma once

#include <array>
#include <string_view>

namespace puzzle::long_text_words {

// No noun is part of another, so that finding one in an answer means that one.
inline constexpr auto kNouns = std::to_array<std::string_view>(
    {"anchor",   "antler",   "apron",    "arrow",   "badger",  "balcony",   "bamboo",  "banjo",
     "barley",   "basket",   "beacon",   "beetle",  "bicycle", "blanket",   "blossom", "bottle",
     "bramble",  "bridge",   "bucket",   "buffalo", "button",  "cabbage",   "cabinet", "camel",
     "candle",   "canyon",   "carpet",   "castle",  "cellar",  "cherry",    "chimney", "chisel",
     "cinnamon", "circus",   "clarinet", "clover",  "cobbler", "coconut",   "compass", "copper",
     "cottage",  "cotton",   "cradle",   "cricket", "crystal", "cushion",   "daisy",   "desert",
     "diamond",  "dolphin",  "donkey",   "dragon",  "drawer",  "eagle",     "elbow",   "ember",
     "engine",   "falcon",   "feather",  "fiddle",  "finger",  "flannel",   "forest",  "fossil",
     "fountain", "gallery",  "garden",   "garlic",  "garnet",  "giraffe",   "glacier", "goblet",
     "granite",  "gravel",   "guitar",   "hammer",  "hamster", "harbor",    "harness", "hazel",
     "hedgehog", "helmet",   "herring",  "hollow",  "honey",   "hornet",    "island",  "ivory",
     "jacket",   "jaguar",   "jasmine",  "jersey",  "jigsaw",  "juniper",   "kettle",  "kidney",
     "kitchen",  "kitten",   "ladder",   "lantern", "lagoon",  "laurel",    "lemon",   "leopard",
     "library",  "lizard",   "lobster",  "magnet",  "mammoth", "mango",     "maple",   "marble",
     "meadow",   "melon",    "mermaid",  "mirror",  "mitten",  "monkey",    "mosaic",  "muffin",
     "mustard",  "napkin",   "needle",   "nickel",  "nutmeg",  "oatmeal",   "ocean",   "octopus",
     "olive",    "onion",    "orchard",  "orchid",  "otter",   "oyster",    "paddle",  "palace",
     "panther",  "parcel",   "parrot",   "parsley", "peanut",  "pebble",    "pelican", "pencil",
     "penguin",  "pepper",   "piano",    "pigeon",  "pillow",  "pistachio", "planet",  "plough",
     "pocket",   "pony",     "poplar",   "potato",  "prairie", "pumpkin",   "puppet",  "puzzle",
     "python",   "quarry",   "quartz",   "rabbit",  "raccoon", "radish",    "raven",   "ribbon",
     "river",    "robin",    "rocket",   "rooster", "saddle",  "saffron",   "salmon",  "sandal",
     "sapphire", "satchel",  "sausage",  "scarf",   "seagull", "shadow",    "shovel",  "silver",
     "skillet",  "slipper",  "spider",   "spinach", "spruce",  "squirrel",  "stable",  "statue",
     "sugar",    "summit",   "sunset",   "swallow", "tailor",  "teapot",    "temple",  "thimble",
     "thistle",  "thunder",  "timber",   "tobacco", "tomato",  "trumpet",   "tulip",   "tunnel",
     "turtle",   "umbrella", "urchin",   "valley",  "vanilla", "velvet",    "village", "violin",
     "volcano",  "waffle",   "wagon",    "walnut",  "walrus",  "weasel",    "whistle", "willow",
     "window",   "wizard",   "yogurt",   "zebra",   "zipper"});

inline constexpr auto kAdjectives = std::to_array<std::string_view>(
    {"amber",    "ancient", "bashful",  "blue",    "bold",     "brave",    "breezy", "bright",
     "brisk",    "broad",   "calm",     "careful", "cheerful", "chilly",   "clever", "cloudy",
     "cold",     "cozy",    "crimson",  "curious", "daring",   "deep",     "dusty",  "eager",
     "early",    "earnest", "elegant",  "faint",   "famous",   "fearless", "fierce", "fluffy",
     "foggy",    "fragile", "fresh",    "frosty",  "gentle",   "giant",    "gilded", "glad",
     "gloomy",   "golden",  "graceful", "grand",   "green",    "grumpy",   "handy",  "happy",
     "hasty",    "heavy",   "hidden",   "hungry",  "icy",      "jolly",    "keen",   "kind",
     "lazy",     "lively",  "lonely",   "long",    "loud",     "lucky",    "mellow", "merry",
     "mighty",   "misty",   "modest",   "muddy",   "narrow",   "nimble",   "noble",  "noisy",
     "odd",      "pale",    "patient",  "plain",   "playful",  "polite",   "proud",  "purple",
     "quick",    "quiet",   "rapid",    "rare",    "red",      "rough",    "round",  "royal",
     "rusty",    "sandy",   "scarlet",  "shallow", "sharp",    "shiny",    "shy",    "silent",
     "simple",   "sleepy",  "slow",     "small",   "smooth",   "snowy",    "soft",   "solid",
     "spotted",  "steady",  "stormy",   "strange", "striped",  "strong",   "sturdy", "sunny",
     "sweet",    "swift",   "tall",     "tame",    "tender",   "tidy",     "tiny",   "tough",
     "tranquil", "upright", "vast",     "vivid",   "warm",     "wary",     "weary",  "wild",
     "windy",    "wise",    "witty",    "wooden",  "yellow",   "young",    "zealous"});

inline constexpr auto kFirstNames = std::to_array<std::string_view>(
    {"Ada",   "Albert", "Alice", "Arthur", "Beatrice", "Bernard", "Carla",  "Cedric",
     "Clara", "Conrad", "Dora",  "Edgar",  "Edith",    "Elias",   "Emma",   "Ernest",
     "Flora", "Frank",  "Grace", "Harold", "Helen",    "Hugo",    "Irene",  "Ivan",
     "Jacob", "Julia",  "Karl",  "Laura",  "Leo",      "Lydia",   "Martin", "Miriam",
     "Nora",  "Oscar",  "Paula", "Ralph",  "Rosa",     "Simon",   "Thelma", "Victor"});

inline constexpr auto kSurnameStarts = std::to_array<std::string_view>(
    {"Al",  "Bar", "Cor", "Dal",  "El",  "Fen", "Gar", "Hol", "Kel", "Lor",
     "Mar", "Nor", "Pel", "Quil", "Ros", "Sel", "Tor", "Ver", "Wes", "Yar"});

inline constexpr auto kSurnameEnds = std::to_array<std::string_view>(
    {"bright", "combe", "dale",  "ford", "gate",  "hurst", "ing",  "land", "leigh", "mond",
     "more",   "ning",  "ridge", "shaw", "stead", "ton",   "vale", "ward", "well",  "wick"});

inline constexpr auto kTownStarts = std::to_array<std::string_view>(
    {"Ash",  "Birk", "Brun",  "Cald", "Dorn", "Eld", "Fal",  "Glen",  "Hart",  "Ken",
     "Lang", "Mel",  "North", "Oak",  "Pen",  "Rav", "Stan", "Thorn", "Under", "Wald"});

inline constexpr auto kTownEnds = std::to_array<std::string_view>(
    {"bourne", "brook",  "bury",    "by",   "cliff", "den",     "field",
     "grave",  "ham",    "holm",    "kirk", "marsh", "minster", "mouth",
     "port",   "thorpe", "thwaite", "stow", "ville", "wood"});

inline constexpr auto kJobs = std::to_array<std::string_view>(
    {"baker", "weaver", "teacher", "sailor", "farmer", "doctor", "printer", "potter", "miller",
     "painter", "lawyer", "nurse", "pilot", "barber", "chemist"});

inline constexpr auto kPets = std::to_array<std::string_view>(
    {"cat", "dog", "canary", "tortoise", "goat", "pony", "ferret", "hen"});

}  // namespace puzzle::long_text_words
