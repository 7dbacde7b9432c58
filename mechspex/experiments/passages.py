"""Passages of plain English to measure on, written for this."""

PASSAGES = (
    "The old mill stands at the bend of the river, where the water runs fast over the stones. "
    "Every spring the farmers of the valley bring their grain there, and the miller, who is as "
    "old as the mill itself, weighs each sack and writes the number down in a long brown book "
    "before he pours the grain into the wooden hopper.",
    "Copper is a soft metal that carries heat and electricity better than almost any other. "
    "People have melted it for thousands of years, first for tools and pots and later for "
    "wires. When it is mixed with tin it becomes bronze, which is harder than either of them "
    "and was used for swords, bells and statues.",
    "On the third day of the trial the lawyer asked the witness where she had been on the "
    "evening of the fire. She said that she had been at home with her two children, that the "
    "lights had gone out at about nine, and that she had seen a man run across the yard, but "
    "that she could not say who the man was.",
    "To make the soup, cut two onions and four carrots into small pieces and cook them in "
    "butter until they are soft. Add the potatoes, the stock and a little salt, and let the pot "
    "boil slowly for half an hour. Then take out the bay leaf, stir in the cream, and serve the "
    "soup hot with fresh bread.",
    "The committee met on Monday to discuss the new bridge. Most of its members agreed that the "
    "old one was no longer safe, but they could not agree on who should pay for it. The mayor "
    "said that the city had no money left this year, and the governor said that the state had "
    "already paid for the last bridge and the one before that.",
    "Bees find their way home by the position of the sun. A bee that has found flowers dances "
    "on the comb when it comes back, and the angle of the dance tells the other bees in which "
    "direction they have to fly. The longer the dance takes, the farther away the flowers are, "
    "and so even a young bee finds the place at once.",
    "Anna had never been on a ship before. She stood at the rail and watched the harbour grow "
    "smaller, first the people, then the houses, then the church on the hill, until there was "
    "nothing left but a thin grey line between the sea and the sky. Her brother had gone below "
    "to sleep, and for the first time she was alone.",
    "The first computers filled whole rooms and were slower than a cheap watch is today. They "
    "were built from thousands of glass tubes that became hot and broke, so that someone had to "
    "walk around with a basket of new tubes all day. When the transistor was invented, "
    "computers became smaller, faster and far more reliable within a few years.",
    "In the north of the country the winters are long and dark. Snow falls in October and stays "
    "until May, and for six weeks the sun does not rise at all. The people who live there say "
    "that one gets used to the dark but not to the light, because in summer the sun does not "
    "set and nobody can sleep.",
    "The team lost the first two games of the season and nobody expected much of the third. But "
    "in the last minute the youngest player took the ball in front of his own goal, ran past "
    "four men who were all bigger than he was, and scored. After that they won every game until "
    "the end of the year, and the coach said it was all because of that one goal.",
    "Water expands when it freezes, which is why ice floats and why pipes burst in cold "
    "weather. Most other liquids do the opposite: they become denser as they become solid and "
    "sink. If ice were heavier than water, lakes would freeze from the bottom up, and no fish "
    "could live through the winter in them.",
    "When the king died he left three sons and one crown. The eldest said that the crown was "
    "his by law, the second that it was his because he had led the army, and the youngest said "
    "nothing. So the people asked the youngest what he wanted, and he answered that he wanted "
    "to go home and look after his garden, and they made him king.",
    "Please note that the library will be closed on Friday and Saturday of this week because of "
    "repairs to the roof. Books that are due on one of these days can be returned on Monday "
    "without a fee. Readers who have ordered a book from another library will get a letter as "
    "soon as it has arrived, and can fetch it at the side door.",
    "The price of bread rose by ten percent last year and the price of milk by almost twenty. "
    "The minister blamed the weather, the farmers blamed the shops, and the shops blamed the "
    "price of oil. Families with little money were hit hardest, since they spend a larger part "
    "of what they earn on food than families with more money do.",
    "The dog had been waiting at the station every evening for a year. When the train came in "
    "he stood up, looked at each person who got out, and lay down again when the last of them "
    "had gone. The man who sold newspapers gave him water, and the woman from the bakery gave "
    "him what was left of the bread, but he would not go home with either of them.",
    "A good map leaves out more than it shows. The map of a subway has straight lines where the "
    "tunnels bend, and puts stations at equal distances that are in truth far apart, and nobody "
    "minds, because what the traveller wants to know is only where to change trains. The map of "
    "a hiker has to show every bend, but no stations at all.",
)
