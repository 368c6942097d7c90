"""Release: the evidence on a run, gates that judge it, a card, and an export."""

# "as" says that the name is meant for users of this package.
from ftlib.release.card import write_card as write_card
from ftlib.release.card import write_checklist as write_checklist
from ftlib.release.evidence import Pack as Pack
from ftlib.release.evidence import find_stale as find_stale
from ftlib.release.evidence import gather as gather
from ftlib.release.evidence import warn_if_stale as warn_if_stale
from ftlib.release.gates import Decision as Decision
from ftlib.release.gates import Gate as Gate
from ftlib.release.gates import RefusedError as RefusedError
from ftlib.release.gates import decide as decide
from ftlib.release.gates import export as export
from ftlib.release.gates import judge as judge
from ftlib.release.terms import find_term_faults as find_term_faults
from ftlib.release.terms import read_terms as read_terms
