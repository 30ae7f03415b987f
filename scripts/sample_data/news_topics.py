"""What the articles are about: ledes, bodies and highlights by topic, and what fits every story."""

from __future__ import annotations

from typing import NamedTuple


class Topic(NamedTuple):
    """Templates of one kind of story."""

    ledes: tuple[str, ...]
    body: tuple[str, ...]
    highlights: tuple[str, ...]


CHOICES = {
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "month": ("January", "March", "April", "June", "July", "September", "October", "November"),
    "season": ("spring", "summer", "autumn", "winter"),
    "daytime": (
        "early in the morning",
        "shortly before noon",
        "in the late afternoon",
        "after dark",
        "overnight",
    ),
    "said": (
        "said",
        "told reporters",
        "told a packed room",
        "said in a statement",
        "said by telephone",
        "added",
    ),
    "medium": ("a local radio station", "the morning paper", "regional television", "a community newsletter"),
    "venue": (
        "the town hall",
        "a school gymnasium",
        "the old ferry terminal",
        "the county library",
        "the market square",
    ),
    "mood": ("relief", "caution", "open anger", "quiet satisfaction", "some surprise", "a shrug"),
    "share": ("a third", "nearly half", "about a quarter", "two thirds", "a small part", "most"),
    "quote": (
        "We have waited long enough for an answer, and now we have one",
        "Nobody here thinks this will be easy, but it is the right thing to do",
        "I would rather hear bad news early than good news late",
        "The numbers tell one story and the people who live here tell another",
        "It took us years to get to this point and it will take more to finish",
        "What matters to me is that the work is done properly and paid for honestly",
        "You can argue about the cost, but you cannot argue about the need",
        "We made mistakes and we intend to say so openly",
    ),
}

GENERAL = (
    "The announcement was met with {mood} in {city}, where the matter has been discussed for {years} years.",
    '"{quote}," {resident}, who has lived in the area since childhood, {said}.',
    '"{quote}," {official_last} {said} on {day}.',
    "{critic}, a long-standing critic, called the explanation incomplete and asked for the full record.",
    "According to figures published in {month}, {share} of households in {region} are affected in some way.",
    "A survey by {medium} found that {n_38_74} percent of those asked were in favor, with {n_6_19} percent "
    "undecided.",
    "{expert_last} cautioned that comparisons with earlier years are difficult because the method of "
    "counting changed.",
    "A public meeting is planned at {venue} on {day}, and those who cannot attend may write until the end of "
    "{month}.",
    "Similar questions have come up in other towns in {region}, though seldom with so much at stake.",
    "By {day} evening more than {n_100_900} people had signed a petition that asks for more time.",
    "{official_last}, who took office {n_2_9} years ago, did not answer questions about a possible second "
    "term.",
    "Records show that the first warning was sent in {month}, several weeks before anyone acted on it.",
    "Those who know {official_last} describe a patient negotiator who reads every page before signing.",
    "The cost is put at {amount} dollars, of which {share} is to come from a fund set up after the floods.",
    "Officials declined to name those involved, citing rules that protect the privacy of employees.",
    "{resident_last} keeps a folder of letters on the subject and says that only two were ever answered.",
    "The next report is due in {month}, and an independent reviewer has been asked to read it before it is "
    "released.",
    "A spokeswoman for the county said that staff had worked through the weekend to answer inquiries.",
    "Shops near {venue} closed early on {day}, and buses were sent around the center until evening.",
    "Whether the plan survives the coming budget is uncertain; the vote is expected before the end of "
    "{season}.",
    "In an interview with {medium}, {critic_last} accepted the aim but disputed the schedule.",
    '"{quote}," {critic_last} {said}, to scattered applause.',
    "The university in {city} will publish the underlying data so that others can check the result.",
    "Previous attempts failed twice, once for lack of money and once for lack of a majority.",
)

HIGHLIGHTS = (
    "{resident}, who has lived in {city} since childhood, speaks of {mood} after {years} years of "
    "discussion.",
    "A public meeting is planned at {venue} on {day}; letters are accepted until the end of {month}.",
    "{critic} calls the explanation incomplete and asks officials to publish the full record.",
    "Figures released in {month} show that {share} of households in {region} are affected.",
    "A petition that asks for more time has been signed by more than {n_100_900} people.",
)

TOPICS = (
    Topic(
        (
            "The council voted {n_6_9} to {n_2_5} on {day} to rebuild the bridge that has been closed to "
            "traffic since last {season}, ending {years} years of dispute over who should pay for it.",
            "After a debate that lasted until midnight, the council approved {amount} dollars for a new "
            "bridge and asked {official}, the chief engineer, to begin before {month}.",
        ),
        (
            "Inspectors found cracks in {n_3_14} of the supports and limited trucks to {n_5_20} tons before "
            "the crossing was shut altogether.",
            "Ambulances now need {n_9_25} minutes longer to reach the eastern quarter, the fire chief wrote "
            "in {month}.",
            "The new deck will be wide enough for two lanes, a path for bicycles and, one day, a tram.",
            "{expert}, who teaches structural engineering, said that steel of that age loses strength "
            "slowly, then all at once.",
            "Ferry operators offered to double their service, which {official_last} called generous but no "
            "solution.",
            "Three firms have sent in bids, and the lowest is {n_4_19} percent above the estimate.",
            "Fishing crews asked that piles be driven outside the spawning season, a condition the council "
            "accepted.",
            "The old span, opened to horse carts and later widened for cars, will be kept as a footbridge if "
            "money allows.",
            "A clause in the contract takes {n_10_60} thousand dollars from the builder for each week of "
            "delay.",
            "Toll booths were considered and rejected, since most of those who cross do so to get to work.",
        ),
        (
            "Council approves a new bridge at {city} after {years} years of dispute.",
            "Project costs {amount} dollars and is led by {official}.",
            "Detours have delayed ambulances and commuters since the closure.",
            "Critics led by {critic} doubt the schedule and ask for the full record.",
            "Work is expected to begin before the end of the {season}.",
        ),
    ),
    Topic(
        (
            "A storm that gathered over the sea {daytime} tore roofs from houses, flooded {count} cellars "
            "and left {region} without power for most of {day}.",
            "Rescue crews in boats brought {count} people out of their homes on {day} after the river rose "
            "faster than any forecast had said.",
        ),
        (
            "Gusts of {n_70_130} miles an hour were measured at the lighthouse before the instrument failed.",
            "{official}, who leads the emergency office, said the sirens had worked but that many took them "
            "for a drill.",
            "The shelter at {venue} took in {n_80_400} people, among them {n_5_30} patients of a nursing "
            "home.",
            "Crews restored power to {n_3_40} thousand customers by evening and hoped to reach the rest by "
            "{day}.",
            "{expert}, a meteorologist, pointed to water {n_2_4} degrees warmer than usual for the {season}.",
            "Dairy farmers poured milk away because tankers could not pass the flooded roads.",
            "Insurers expect claims of {amount} dollars, a figure that will rise as water recedes.",
            "Divers searched a submerged bus and found it empty; the driver had let everyone off at the "
            "hill.",
            "A levee strengthened {n_3_12} years ago held, while an older one downstream gave way in two "
            "places.",
            "Schools stay closed until {day}, and the water works advise boiling whatever comes from the "
            "tap.",
        ),
        (
            "Storm floods {count} cellars and cuts power across {region}.",
            "Emergency chief {official} says sirens worked but were mistaken for a drill.",
            "Damage is estimated at {amount} dollars and likely to rise.",
            "Schools remain closed; residents are told to boil tap water.",
        ),
    ),
    Topic(
        (
            "Two goals in the last {n_3_9} minutes sent {city} into the final on {day} and ended a run of "
            "defeats against their oldest rival that had lasted {years} years.",
            "{official} saved a penalty deep in stoppage time and {city} held on to a lead that few had "
            "expected.",
        ),
        (
            "The visitors had {n_55_68} percent of the ball and little to show for it until the hour.",
            "Coach {expert} changed both wingers at half-time, a decision that drew whistles and later "
            "cheers.",
            "A crowd of {n_9_60} thousand, the largest of the season, stayed long after the floodlights were "
            "dimmed.",
            "The winning goal came from a corner that had been practised, {expert_last} said, every morning "
            "for a month.",
            "{resident}, a substitute of {n_17_19}, touched the ball four times and scored with the last of "
            "them.",
            "The referee sent off a defender for a second foul and was escorted from the field at the end.",
            "The captain played on with a bandaged hand and will be examined on {day}.",
            "It was the first time in {n_8_40} meetings that the home side had come from behind.",
            "Tickets for the final go on sale on {day}, with {share} reserved for members.",
            "The defeated manager praised the winners, blamed nobody, and left without taking questions.",
        ),
        (
            "{city} reaches the final with two late goals.",
            "Coach {expert} praised for his changes at half-time.",
            "Teenage substitute {resident} scores with the last touch of the match.",
            "The captain is to be examined after playing on with an injured hand.",
        ),
    ),
    Topic(
        (
            "Researchers in {city} have found that a common soil fungus breaks down a widely used plastic "
            "within {n_6_30} weeks, according to a study published on {day}.",
            "A sleep trial with {n_200_2400} volunteers suggests that regular hours matter more than long "
            "ones, a team led by {official} reported on {day}.",
        ),
        (
            "The effect was measured in {n_3_9} laboratories that did not know which samples had been "
            "treated.",
            "{expert}, who was not involved, called the work careful and the claims modest.",
            "The team gave up an earlier explanation when control samples behaved in the same way.",
            "Funding of {amount} dollars came from public sources, and the authors declare no competing "
            "interests.",
            "Larger trials are planned in {region}, where conditions vary more than in any greenhouse.",
            "A patent has been filed, but {official_last} said that farmers would not have to pay for its "
            "use.",
            "The published data contain {n_12_90} thousand measurements and the program that evaluates them.",
            "Reviewers asked for a further experiment, which delayed publication by {n_4_14} months.",
            "The idea came from a student who forgot a tray over the holidays and looked at it before "
            "throwing it out.",
            "Nobody should change habits because of one study, {expert_last} warned, however well it is "
            "made.",
        ),
        (
            "Team led by {official} publishes a study that was checked in several laboratories.",
            "Independent expert {expert} calls the work careful and its claims modest.",
            "Data and programs are open; larger trials are planned in {region}.",
            "Experts warn against drawing conclusions from a single study.",
        ),
    ),
    Topic(
        (
            "The maker of electric ferries that employs {count} people in {city} will build a second yard, "
            "its founder {official} said on {day}, after orders worth {amount} dollars.",
            "Shares of the region's largest dairy fell {n_6_28} percent on {day} when it admitted that "
            "profits of {years} quarters had been overstated.",
        ),
        (
            "Revenue grew by {n_4_38} percent in the year to {month}, while costs rose more slowly.",
            "The union welcomed the news and asked that temporary contracts be made permanent first.",
            "{expert}, an analyst, put the odds of a takeover at one in three.",
            "Suppliers have been told to expect payment within {n_20_60} days rather than the usual ninety.",
            "A loan of {amount} dollars from the state bank is tied to jobs being kept until the end of the "
            "decade.",
            "{official_last} started the company in a rented barn with a borrowed lathe and two cousins.",
            "The board met for {n_5_11} hours and parted without a photograph.",
            "Apprentices will be trained at {venue} until the new hall has a roof.",
            "Competitors abroad sell at prices that the company says it cannot and will not match.",
            "The audit committee has hired an outside firm, whose findings are expected in {month}.",
        ),
        (
            "Company in {city} announces a change that concerns {count} employees.",
            "Founder {official} points to orders worth {amount} dollars.",
            "Unions ask for permanent contracts before expansion.",
            "Analyst {expert} considers a takeover possible.",
        ),
    ),
    Topic(
        (
            "A jury in {city} cleared {official}, a former harbor master, of all charges on {day} in a trial "
            "that had gripped {region} for {n_5_14} weeks.",
            "A judge ordered the county on {day} to release {count} pages about the sale of the old "
            "hospital, a decision that {critic} had fought for over {years} years.",
        ),
        (
            "The jury deliberated for {n_4_30} hours and twice asked to hear a recording again.",
            "Prosecutors had relied on ledgers that the defense showed to have been copied by hand.",
            "{expert}, who teaches criminal law, said the verdict would be read closely well beyond "
            "{region}.",
            "The courtroom, which seats {n_40_120}, was full each day before eight in the morning.",
            "A key witness could not recall the date of the meeting, nor who had called it.",
            "The judge reminded everyone that suspicion, however reasonable, does not add up to proof.",
            "An appeal must be lodged within {n_14_30} days; lawyers on both sides would not say if one is "
            "planned.",
            "Outside, supporters sang while others held photographs of the ships that had been lost.",
            "Costs of the trial, put at {amount} dollars, fall to the public purse.",
            "{official_last} thanked the jurors by number, since their names have not been made public.",
        ),
        (
            "Court in {city} decides a case followed across {region} for weeks.",
            "Ledgers at the heart of the case had been copied by hand.",
            "Law professor {expert} expects the decision to be widely read.",
            "It is not known whether there will be an appeal.",
        ),
    ),
    Topic(
        (
            "A museum in {city} reopened on {day} after {years} years of building, with a collection of maps "
            "that nobody alive had seen in one place.",
            "A festival that began as a wedding in a boatyard drew {n_12_80} thousand people to {city} over "
            "the weekend.",
        ),
        (
            "Director {official} led the first visitors through the halls herself, in rubber boots and a "
            "raincoat.",
            "The oldest sheet, drawn on calfskin, shows {region} with a lake that has long since dried up.",
            "Admission is free on {day}s, a promise that the foundation has guaranteed for {n_5_20} years.",
            "{expert}, a historian, identified a coat of arms that had puzzled curators for decades.",
            "Volunteers gave {n_4_30} thousand hours, from sorting slides to carrying pianos.",
            "A donor who wishes to remain unknown paid for the roof, to the sum of {amount} dollars.",
            "Children may touch almost everything on the ground floor, and did.",
            "The closing concert was moved to {venue} when clouds came up over the water.",
            "Some works will travel to partner museums in {month}, insured and under guard.",
            "The café serves a soup from a recipe found in the margin of a ship's log.",
        ),
        (
            "Crowds come to {city} for a long-awaited cultural event.",
            "Director {official} opened the doors in person.",
            "An anonymous gift of {amount} dollars paid for the roof.",
            "Volunteers gave thousands of hours to make it possible.",
            "Part of the program travels on in {month}.",
        ),
    ),
    Topic(
        (
            "Hikers who had been missing for {n_2_6} days in the mountains above {city} were found alive on "
            "{day} in a cave that appears on no map.",
            "A {n_9_15}-year-old steered a school bus to the side of the road on {day} after the driver lost "
            "consciousness, saving {n_14_38} children.",
        ),
        (
            "They had shared {n_3_9} apples and the water that ran down the rock.",
            "{official}, who led the search, said a dog named Biscuit picked up the trail in fog.",
            "Helicopters could not fly, so {n_30_120} volunteers formed a line and walked uphill arm's "
            "length apart.",
            "Doctors treated mild frostbite and expect all of them to go home by {day}.",
            "{expert}, a physician, said that staying in one place had very likely saved them.",
            "A signal from a telephone was received for {n_4_19} seconds and narrowed the search to one "
            "valley.",
            "Neighbors left lamps in their windows each night, an old custom in {region}.",
            "The rescue service, which runs on donations, needs {n_20_95} thousand dollars a year.",
            "Path markers will be renewed before {season}, {official_last} promised.",
            "At {venue}, bells were rung when the news came in.",
        ),
        (
            "A rescue near {city} ends well after anxious hours.",
            "Search leader {official} credits volunteers and a dog named Biscuit.",
            "Doctors expect everyone to recover fully.",
            "The rescue service depends on donations.",
        ),
    ),
)
