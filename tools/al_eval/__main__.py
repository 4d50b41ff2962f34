"""python -m al_eval"""

from al_eval import main

main()
