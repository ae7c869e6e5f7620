"""Sentences for synthetic speech: random word strings for training, written sentences held out for testing.

Articulation needs sound sequences, not sense: random words in random order cover more neighbour pairs an hour than
prose does. Mandarin is pinyin with tone digits, the form espeak-ng reads.
"""

WORDS = {
    "en": """
        a about above across after again all almost along always am an and apple are arm arrive ask at away baby
        back bag ball bamboo basket be beach bear beautiful became because bed been before begin behind believe
        below best better between big bird black blue board boat body book both bottom box boy bread break bring
        brother brown build but butter buy by calm came camera can car carry cat change chair cheap child church
        city clean climb close cloud coat coffee cold come company could country cover cup dark daughter day
        deep did different do dog door down dream drive drop each early earth eat egg eight enough even evening
        ever every eye face fall family far farm fast father favour few field fifty find fine fire first fish
        five float floor flower fly follow food foot for forget four free friend from full game garden gave give
        glass go gold gone good grass great green ground group grow had hair half hand happy hard has hat have
        he head hear heart heavy help her here high him his hold home hope horse hot hour house how hundred ice
        idea if important in into iron is island it job jump just keep key kind king kitchen knew know lady lamp
        land language large last late laugh leaf learn leave left leg less letter life light like line lion
        listen little live long look lost love low lunch made make man many map march market may maybe me
        measure meat meet memory middle might milk mind minute money month moon more morning most mother
        mountain mouse mouth move much music must my name near need never new next nice night nine no noise
        north nose not nothing now number ocean of off office often oil old on once one only open or orange
        other our out over own page paint pair paper park part party pass past people perhaps piano picture
        piece place plan plant play please point poor post power present pretty problem public pull purple push
        put queen question quick quiet rabbit rain ran reach read ready really red remember rest rich right ring
        river road rock room rose round run sad said salt same sand sat saw say school sea season second see
        seem sell send seven several shape share she sheep ship shirt shoe shop short should shout show side
        silver simple since sing sister sit six sky sleep slow small smile smoke snow so soap soft some song
        soon sound soup south speak spoke spring stand star start stay still stone stop story street strong such
        sugar summer sun supper sure sweet swim table take talk tall tea teach tell temple ten than thank that
        the their them then there these they thing think this those though thousand three through throw time
        tired to today together told tomorrow too took top touch toward town train travel tree trip true try
        turn twelve twenty two umbrella uncle under until up upon us use valley van very village visit voice
        vowel wait walk wall want warm was wash watch water wave way we weather week well went were west wet
        what wheel when where which while white who whole why wide wife wild will wind window winter wish with
        woman wonder wood word work world would write wrong yard year yellow yes yesterday yet you young your
        zebra zero zoo
    """,
    "zh": """
        ni3 hao3 wo3 men5 ta1 shi4 de5 bu4 you3 mei2 zai4 zhe4 na4 ge4 ren2 shang4 xia4 lai2 qu4 da4 xiao3 duo1
        shao3 zhong1 guo2 xue2 sheng1 lao3 shi1 peng2 you5 ma1 ma5 ba4 ba5 ge1 jie3 mei4 di4 jia1 fang2 zi5 men2
        che1 lu4 shui3 huo3 shan1 feng1 yu3 tian1 kong1 ming2 yue4 liang4 bai2 hei1 hong2 lü4 lan2 huang2 mian4
        bao1 mi3 fan4 cha2 niu2 nai3 ping2 guo3 xiang1 jiao1 shu1 bi3 zhi3 zhuo1 yi3 dian4 hua4 nao3 shou3 ji1
        fei1 huo3 che1 mao1 gou3 niao3 yu2 chi1 he1 shuo1 kan4 ting1 xie3 du2 zou3 pao3 fei1 mai3 mai4 gei3 dui4
        cuo4 kuai4 man4 re4 leng3 xin1 jiu4 chang2 duan3 gao1 ai3 pang4 shou4 yi1 er4 san1 si4 wu3 liu4 qi1 ba1
        jiu3 shi2 bai3 qian1 wan4 jin1 tian1 zuo2 nian2 ming2 zao3 wan3 dian3 fen1 zhong1 xian4 xing1 qi1 wen4
        ti2 bang1 zhu4 gong1 zuo4 ban4 pin2 yin1 wei4 suo3 yi3 dan4 shi4 ke3 neng2 yao4 xiang3 ai4 xi3 huan1
        mei3 li4 piao4 liang5 gao1 xing4 kuai4 le4 fu4 mu3 po2 pin3 bian4 pian4
    """,
    "de": """
        der die das und ist ein eine nicht auch mit auf für von wir sie haben werden kommen machen gehen sehen
        Haus Baum Maus Wasser Brot Apfel Mutter Vater Bruder Schwester Freund Straße Stadt Berg Fluss Himmel
        Sonne Mond Blume Vogel Fisch Pferd Katze Hund Buch Papier Fenster Tür Küche Zimmer Abend Morgen Woche
        Jahr schön groß klein blau grün weiß schwarz braun warm kalt müde fröhlich schnell langsam über unter
        zwischen bei vielleicht immer manchmal wöchentlich
    """,
    "fr": """
        le la les un une et est pas avec pour dans sur nous vous ils avoir être faire aller voir maison arbre
        eau pain pomme mère père frère soeur ami rue ville montagne fleuve ciel soleil lune fleur oiseau poisson
        cheval chat chien livre papier fenêtre porte cuisine chambre soir matin semaine année beau grand petit
        bleu vert blanc noir brun chaud froid vite lentement peut-être toujours jamais beaucoup bonjour voudrais
        pourquoi combien
    """,
    "es": """
        el la los un una y es no con para en sobre nosotros ellos tener hacer ir ver casa árbol agua pan manzana
        madre padre hermano amigo calle ciudad montaña río cielo sol luna flor pájaro pez caballo gato perro
        libro papel ventana puerta cocina noche mañana semana año bonito grande pequeño azul verde blanco negro
        caliente frío rápido despacio quizás siempre nunca mucho bueno pueblo
    """,
    "it": """
        il la i un una e è non con per in su noi voi loro avere fare andare vedere casa albero acqua pane mela
        madre padre fratello amico strada città montagna fiume cielo sole luna fiore uccello pesce cavallo gatto
        cane libro carta finestra porta cucina sera mattina settimana anno bello grande piccolo blu verde bianco
        nero caldo freddo veloce piano forse sempre mai molto buono
    """,
}
WORDS = {language: tuple(words.split()) for language, words in WORDS.items()}

# espeak-ng voice names; the variants (f1, m3, klatt2, ...) change formants, pitch and voice source
ESPEAK_VOICES = {
    "en": ("gmw/en-US", "gmw/en", "gmw/en-GB-scotland", "gmw/en-GB-x-rp"),
    "zh": ("sit/cmn-Latn-pinyin",),
    "de": ("gmw/de",),
    "fr": ("roa/fr",),
    "es": ("roa/es",),
    "it": ("roa/it",),
}
TRAIN_VARIANTS = ("", "+f1", "+f2", "+f3", "+f4", "+m1", "+m2", "+m3", "+m4", "+m6", "+klatt", "+klatt2", "+klatt4",
                  "+Andy", "+Annie", "+Alex", "+Denis", "+linda", "+steph", "+adam", "+michel")  # fmt: skip
TEST_VARIANTS = ("+f5", "+m7", "+klatt3", "+Michael")
FLITE_TRAIN_VOICES = ("slt", "awb", "kal16")
FLITE_TEST_VOICES = ("rms",)

TEST_SENTENCES = {
    "en": (
        "My puppy found a big blue map above the barn.",
        "Please buy five apples and a pound of butter.",
        "Father parked the car far from the calm harbour.",
        "A broad smile brought warmth to the room.",
        "Bob and Pam were happy to be home by May.",
        "We watched the tall ships sail past the island.",
        "The museum opened its doors at half past nine.",
        "Give me back my bamboo flute, said the old farmer.",
        "Nobody believed that the vampire movie was funny.",
        "Amber palm trees bend above the open bay.",
    ),
    "zh": (
        "ni3 hao3, wo3 men5 mai3 mian4 bao1 he2 ping2 guo3.",
        "ma1 ma5 bang1 wo3 ba3 men2 da3 kai1.",
        "ta1 pao3 bu4 hen3 kuai4, ba4 ba5 zai4 hou4 mian4 man4 man4 zou3.",
        "jin1 tian1 de5 feng1 da4, bai2 mao1 zai4 fang2 zi5 li3.",
    ),
}


def random_sentence(rng, language):
    """A string of 3 to 10 random words with a comma or full stop now and then."""
    words = [str(word) for word in rng.choice(WORDS[language], int(rng.integers(3, 11)))]
    for i in range(1, len(words) - 1):
        if rng.random() < 0.12:
            words[i] += str(rng.choice([",", ".", ","]))
    return " ".join(words) + "."
