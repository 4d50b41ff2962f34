"""python -m al_sample"""

from al_sample import main

main()
