"""The words of the generated tasks: what `embedded` is made of, and what `embedded-tuning` is made of instead.

The two sets have the same shape (tasks, classes, templates, words a class) and not one word in common, so that what is
tuned on the second has seen nothing of the first. The words of `EMBEDDED` are part of stored checkpoints' keys.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """What one generated task is made of: templates with `{a}` and `{b}` for cue words and `{n}` for neutral ones."""

    name: str
    category: str
    instruction: str
    templates: tuple[str, ...]
    neutral: tuple[str, ...]
    cues: dict[str, tuple[str, ...]]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


EMBEDDED = (
    Wording(
        name="reviews",
        category="Opinion",
        instruction="Is the opinion in the review good or bad? ",
        templates=(
            "the {n} was {a} and the {n} felt {b}",
            "we found the {n} {a} , also {b}",
            "{a} {n} with a {b} {n}",
            "my {n} said it was {b} and {a}",
        ),
        neutral=_words(
            "hotel dinner film room service table waiter garden story music phone actor scene staff meal chair"
        ),
        cues={
            "good": _words(
                "lovely superb charming delightful splendid pleasant brilliant tasty fresh elegant warm perfect amazing "
                "friendly cosy excellent"
            ),
            "bad": _words(
                "awful dreadful boring dirty rude bland noisy broken stale ugly terrible cold tedious shabby horrible poor"
            ),
        },
    ),
    Wording(
        name="headlines",
        category="Topic",
        instruction="Which section of the newspaper does the headline belong to? ",
        templates=(
            "{a} news : {n} {b} this week",
            "report says {b} and {a} {n}",
            "{n} {n} after {a} {b}",
            "inside the {a} behind every {b} {n}",
        ),
        neutral=_words(
            "major local early leading national public summer winter surprise second final new older expected"
        ),
        cues={
            "sport": _words(
                "match goal striker league coach tournament medal referee stadium sprint champion penalty cyclist relay"
            ),
            "economy": _words(
                "shares bank profit inflation merger tariff exports budget loan market dividend currency payroll invoice"
            ),
            "science": _words(
                "telescope genome particle fossil vaccine orbit laboratory enzyme neuron satellite glacier isotope comet"
            ),
            "politics": _words(
                "senate ballot minister treaty coalition veto campaign governor embassy lobby mandate election diplomat"
            ),
        },
    ),
    Wording(
        name="requests",
        category="Intent",
        instruction="What does the person want to do? ",
        templates=(
            "please {n} me with the {a} and {b}",
            "can you {n} a {a} for my {b}",
            "i need {b} , {n} the {a} today",
            "{n} my {a} then the {b}",
        ),
        neutral=_words("help show find give check send arrange start handle change bring open"),
        cues={
            "travel": _words(
                "flight ticket airport luggage passport visa ferry itinerary hostel boarding taxi harbour"
            ),
            "cook": _words("recipe oven flour onion garlic soup frying butter dough spice kettle simmer"),
            "listen": _words("song playlist album volume radio podcast melody speaker chorus concert lyrics violin"),
            "repair": _words("screw hammer leak wrench socket wiring hinge drill plumber bolt gasket ladder"),
            "study": _words(
                "homework lecture exam essay textbook grammar algebra tutor notebook chapter syllabus quiz"
            ),
        },
    ),
    Wording(
        name="feelings",
        category="Emotion",
        instruction="Name the emotion of the speaker. ",
        templates=(
            "after the {n} i was {a} and {b}",
            "she became {a} , almost {b} , at the {n}",
            "{b} all {n} and still {a}",
            "they looked {a} when the {n} made them {b}",
        ),
        neutral=_words("party meeting call journey letter visit evening morning talk wedding lesson walk"),
        cues={
            "joy": _words(
                "cheerful smiling laughing glad thrilled jolly merry delighted beaming proud gleeful blissful"
            ),
            "anger": _words("furious shouting cross raging livid hostile bitter fuming outraged irate grumpy seething"),
            "fear": _words(
                "scared trembling nervous panicked worried shaking anxious terrified alarmed uneasy tense timid"
            ),
            "grief": _words(
                "crying tearful mourning lonely gloomy weeping hopeless sorrowful dejected heartsick low numb"
            ),
        },
    ),
    Wording(
        name="riddles",
        category="Entity",
        instruction="What kind of thing is described? ",
        templates=(
            "it has {a} and {b} , it is {n}",
            "a {n} one with {b} beside its {a}",
            "look for {a} , then {b} , quite {n}",
            "{n} , known by its {b} and {a}",
        ),
        neutral=_words("common rare large small grey famous heavy light quiet ordinary typical strange"),
        cues={
            "animal": _words("fur paws whiskers tail claws hooves feathers beak horns snout fins antlers"),
            "plant": _words("petals roots leaves pollen bark stem seeds blossoms thorns sap moss twigs"),
            "vehicle": _words("wheels engine brakes gears headlights clutch tyres bumper exhaust pedals cockpit axle"),
            "building": _words("roof walls windows chimney stairs bricks attic pillars balcony cellar porch gate"),
        },
    ),
)


EMBEDDED_TUNING = (
    Wording(
        name="verdicts",
        category="Inspection",
        instruction="Would an inspector approve these goods? ",
        templates=(
            "our {n} seems {a} while another {n} seems {b}",
            "such {n} proved {a} plus {b}",
            "{a} {n} near some {b} {n}",
            "their {n} arrived both {b} plus {a}",
        ),
        neutral=_words(
            "bicycle lamp basket blanket helmet jacket saddle tent bucket drawer cupboard mattress carpet umbrella suitcase "
            "backpack"
        ),
        cues={
            "approve": _words(
                "sturdy reliable durable polished accurate smooth spotless flawless precise genuine robust stable efficient "
                "tidy handsome seamless"
            ),
            "reject": _words(
                "flimsy faulty cracked rusty wobbly warped torn dented stained crooked brittle mouldy chipped frayed "
                "scratched defective"
            ),
        },
    ),
    Wording(
        name="shelves",
        category="Library",
        instruction="Where would clerks shelve those books? ",
        templates=(
            "{a} tales among {n} {b} pages",
            "author explains {b} plus {a} through {n} pictures",
            "{n} {n} guide covering {a} {b}",
            "between {a} beyond each {b} {n} cover",
        ),
        neutral=_words(
            "illustrated lengthy recent foreign regional annual third modern updated popular minor brief monthly rival"
        ),
        cues={
            "history": _words(
                "pharaoh empire medieval castle dynasty tomb knight gladiator viking archive colony conquest monarch crusade"
            ),
            "religion": _words(
                "temple prayer monk psalm bishop pilgrim altar scripture cathedral gospel blessing priest sermon shrine"
            ),
            "fashion": _words(
                "silk dress necklace perfume denim lipstick velvet hairstyle earring corset scarf ribbon lace"
            ),
            "seafaring": _words(
                "sailor anchor lighthouse tide rudder mast reef navigator deck mooring captain shipwreck lagoon"
            ),
        },
    ),
    Wording(
        name="errands",
        category="Chore",
        instruction="Guess whatever somebody plans. ",
        templates=(
            "let us {n} some {a} plus {b}",
            "could anyone {n} her {a} before his {b}",
            "{b} again so {n} that {a} now",
            "{n} your {a} once more without {b}",
        ),
        neutral=_words("borrow fetch buy grab collect replace choose prepare sort store locate order"),
        cues={
            "laundry": _words(
                "detergent socks ironing towels bleach rinse dryer hamper pillowcase sheets starch clothesline"
            ),
            "exercise": _words(
                "treadmill squats yoga jogging dumbbell pushups stretching gym barbell skipping cardio pilates"
            ),
            "fishing": _words("rod bait trout hook reel salmon lake tackle worm net river angler"),
            "sewing": _words("needle thread button fabric zipper hem thimble stitch pattern yarn knitting cotton"),
            "painting": _words(
                "canvas easel brush watercolour palette sketch pigment varnish mural portrait crayon charcoal"
            ),
        },
    ),
    Wording(
        name="characters",
        category="Trait",
        instruction="Judge their temperament from these lines. ",
        templates=(
            "during our {n} he remained {a} plus {b}",
            "everyone thought him {a} even {b} throughout that {n}",
            "{b} since last {n} yet {a}",
            "neighbours seemed {a} until some {n} left us {b}",
        ),
        neutral=_words(
            "storm festival interview holiday picnic rehearsal funeral reunion auction parade deadline ceremony"
        ),
        cues={
            "bravery": _words(
                "fearless daring heroic bold valiant gutsy undaunted plucky gallant intrepid courageous unflinching"
            ),
            "laziness": _words(
                "idle sluggish drowsy lounging napping slack listless yawning dawdling sleepy slothful lethargic"
            ),
            "kindness": _words(
                "generous caring gentle thoughtful merciful sympathetic tender considerate comforting loving charitable "
                "forgiving"
            ),
            "vanity": _words(
                "boastful conceited preening arrogant smug pompous bragging haughty posing showy swaggering snobbish"
            ),
        },
    ),
    Wording(
        name="hints",
        category="Object",
        instruction="Identify whatever these clues suggest. ",
        templates=(
            "plenty {a} plus {b} rather {n}",
            "an {n} sort holding {b} above several {a}",
            "imagine {a} next {b} overall {n}",
            "{n} yet full {b} beneath {a}",
        ),
        neutral=_words("enormous tiny purple narrow wide curious plain shiny dull familiar unusual peculiar"),
        cues={
            "computer": _words(
                "keyboard screen modem printer processor cable pixels cursor firmware joystick webcam motherboard"
            ),
            "landscape": _words("valley cliff dunes waterfall canyon meadow ridge boulders cave slope gorge hillside"),
            "body": _words("elbow knee ankle spine eyebrow thumb wrist shoulder jaw ribs chin heel"),
            "dessert": _words(
                "frosting cinnamon caramel crumbs sprinkles vanilla meringue jelly cream custard raisins marzipan"
            ),
        },
    ),
)
