"""The words of the field that a page explains where they stand."""

import re

from markupsafe import Markup, escape

TERMS = {
    "front": "The configs that no other config beats on every objective at once: to gain on one of them costs another.",
    "beaten": "Another config is at least as good on both axes, and better on one.",
    "knee": "The config of the front nearest to its ideal corner, both axes scaled to the front's reach: beyond it a little"
    " more accuracy costs much.",
    "MACs": "Multiply-accumulates of one picture's forward pass, counted exactly; FLOPs in papers are often twice as many.",
    "parameters": "Trainable numbers of the network, counted exactly.",
    "validation part": "Pictures drawn from the training set and kept out of training; every score here is of them.",
    "test part": "The data set's own test pictures: no search looks at them.",
    "seed": "What chance is drawn from: the split, the order of pictures, augmentation and the first weights. Arms with the"
    " same seed share all of that.",
    "arm": "One config of a planned comparison, trained with every seed.",
    "95 % interval": "Made so that 95 of 100 such intervals hold the true value (Student's t over the seeds).",
    "margin": "The smallest difference that matters, stated before training.",
    "Holm": "A correction for several comparisons: it keeps the chance of any false claim among them at 5 %.",
    "two one-sided tests": "The test for `no difference`: both a gain and a loss as large as the margin are ruled out.",
    "radius": "How far a distance kernel sees, in positions of the map or as a share of its side; learned with the weights.",
    "kernel": "How the weight of a position falls with its distance: gaussian, laplacian, Cauchy, linear, uniform.",
    "head": "One of several maps that a module keeps side by side, each for a part of the channels.",
    "hypervolume": "How much of the space of objectives a front beats, measured from the worst corner: larger is better.",
    "successive halving": "After some epochs a trial goes on only where it is among the best of those that got there.",
    "stopped early": "Ended by that rule, not by a failure; such a trial is on no front and in no effect.",
    "NSGA-II": "A genetic search: new configs are crossed from those on the front so far.",
    "TPE": "A search that proposes where good trials were dense and bad ones rare.",
    "fANOVA": "How much of the spread of the results each choice explains, over a forest of regression trees.",
    "PED-ANOVA": "How much each choice tells the best trials from all the others.",
    "partial eta squared": "Of the spread that the other effects leave, the share that this one explains.",
    "epoch": "One pass over all training pictures.",
    "key": "A hash of everything that can change a trial's number; equal keys are the same trial.",
}
_LONGEST_FIRST = "|".join(sorted(map(re.escape, TERMS), key=len, reverse=True))
_ANY = re.compile(rf"(?<![\w-])({_LONGEST_FIRST})s?(?![\w-]|\.\w)", re.IGNORECASE)
_BY_NAME = {term.lower(): term for term in TERMS}


class Explainer:
    """Marks terms in texts, each once until `fresh`: the page tells what they mean on hover, focus and touch."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def fresh(self) -> str:
        """From here on every term is marked again."""
        self._seen.clear()
        return ""

    def explained(self, text: object) -> Markup:
        """The text, escaped, with its terms marked and its `commands` set as such. Of text that is markup already, what
        stands between tags."""
        found = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
        pieces = re.split(r"(<a .*?</a>|<code>.*?</code>|<[^>]*>)", found)
        return Markup("".join(piece if place % 2 else _ANY.sub(self._mark, piece) for place, piece in enumerate(pieces)))

    def _mark(self, found: re.Match[str]) -> str:
        term = _BY_NAME.get(found[1].lower(), "")
        if not term or term in self._seen:
            return found[0]
        self._seen.add(term)
        return f'<span class="term" tabindex="0" data-term="{escape(term)}">{found[0]}</span>'
